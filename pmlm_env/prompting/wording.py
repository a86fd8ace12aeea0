"""What a template's fields say, by language: English, and Chinese."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pmlm_env.cohort.schema import Indicator
from pmlm_env.core.languages import is_chinese

#: How unusual a value is: 1, 2 or 3 rounded SDs.
_ENGLISH_DEGREES = ("", "very ", "extremely ")
_CHINESE_LEVELS = {"low": ("偏低", "很低", "极低"), "high": ("偏高", "很高", "极高")}


class English:
    """The words of English prompts, and of those in languages without words of their own.

    Attributes:
        comma: Between the items of a list.
        semicolon: Between lists.
        between: Between sentences, and between a template's parts.
        unknown: Replaces an empty column.
        nothing_measured: Replaces the values of a check-up without any.
        no_checkup: Replaces the check-ups of a patient without any.
        all_normal: Replaces the abnormal values of a patient without any.
        none_abnormal: Likewise, where the reference range of a measured indicator is not known.
        no_level: Replaces the unusual indicators of a patient without any.
    """

    comma, semicolon, between = ", ", "; ", " "
    unknown = "unknown"
    nothing_measured = "nothing was measured"
    no_checkup = "No check-up is on record."
    all_normal = "all within the reference range"
    none_abnormal = "none known to be outside the reference range"
    no_level = "nothing is high or low"

    def name(self, indicator: Indicator) -> str:
        """Return an indicator's name in lists of all check-ups."""
        return indicator.name.replace("_", " ")

    def title(self, indicator: Indicator) -> str:
        """Return an indicator's name in lists of single values."""
        return indicator.title or self.name(indicator)

    def amount(self, digits: str, unit: str) -> str:
        """Return a number with its unit, which may be "", after a space."""
        return f" {digits} {unit}" if unit else f" {digits}"

    def remark(self, text: str) -> str:
        """Return a remark in parentheses, or "" for ""."""
        return f" ({text})" if text else ""

    def outside(self, excess: float) -> str:
        """Return on which side of its reference range a value is; "" = within it."""
        return ("low" if excess < 0 else "high") if excess else ""

    def level(self, side: str, degree: int) -> str:
        """Return how unusual a value is, such as "very high", given "low" or "high" and 1 to 3."""
        return f"{_ENGLISH_DEGREES[degree - 1]}{side}"

    def counted(self, counts: Sequence[tuple[str, int]], k: int) -> str:
        """Return how many of k peers had each label."""
        return self.comma.join(f"{count} of {k} had {label}" for label, count in counts)

    def listed(self, labels: Sequence[str]) -> str:
        """Return the labels of the peers, nearest first."""
        return "nearest first, had: " + self.semicolon.join(labels)

    def likeness(self, pairs: Sequence[tuple[str, float]]) -> str:
        """Return the peers' labels with their likeness."""
        return self.comma.join(f"{label}{self.remark(f'{likeness:.2f}')}" for label, likeness in pairs)

    def probabilities(self, pairs: Sequence[tuple[str, float]]) -> str:
        """Return labels with their probabilities."""
        return self.comma.join(f"{label} {probability:.0%}" for label, probability in pairs)

    def when(self, days: int | None, whole: bool) -> str:
        """Return when a check-up was: days before the latest one, or None for the latest one itself.

        Args:
            days: The number of days.
            whole: Whether to say before what.
        """
        if days is None:
            return "Latest check-up"
        before = " the latest check-up" if whole else ""
        return f"{days} day{'' if days == 1 else 's'} before{before}"

    def line(self, what: str, items: str) -> str:
        """Return a sentence of a heading and items."""
        return f"{what}: {items}."

    def not_shown(self, n: int) -> str:
        """Return that n earlier check-ups are not shown."""
        return f"Earlier check-ups, not shown: {n}."

    def mean_levels(self, by_level: Mapping[str, Sequence[str]], n_more: int) -> str:
        """Return which indicators are unusual in the mean of all check-ups.

        Args:
            by_level: Their names, by level.
            n_more: How many more there are.
        """
        parts = [f"{level}: {self.comma.join(names)}" for level, names in by_level.items()]
        parts += [f"{n_more} more indicators are low or high"] if n_more else []
        return f"In the mean of all check-ups, {self.semicolon.join(parts) or self.no_level}."

    def earlier(self, n: int, trends: str, n_hidden: int) -> list[str]:
        """Return lines on n earlier check-ups: their trends, which may be "", and the number of indicators left out."""
        what = f"{n} earlier check-up{'s' * (n > 1)}"
        lines = [f"The {what}, first to last: {trends}."] if trends else []
        return [*lines, *([f"Left out of the {what}: {n_hidden} indicators."] if n_hidden else [])]

    def left_out(self, n: int) -> str:
        """Return that n values of the latest check-up are left out."""
        return f"Left out of the latest check-up: {n} values."

    def once(self, name: str, digits: str, unit: str) -> str:
        """Return a value that was measured once in the earlier check-ups."""
        return f"{name}{self.amount(digits, unit)} once"

    def trend(self, name: str, first: str, last: str, unit: str, direction: int | None) -> str:
        """Return an indicator's first and last value; ``direction`` is -1, 0 or 1, or None = unknown."""
        words = {None: "", -1: " falling", 0: " steady", 1: " rising"}
        return f"{name} {first} to{self.amount(last, unit)}{words[direction]}"


class Chinese(English):
    """The words of Chinese prompts."""

    comma, semicolon, between = "，", "；", ""
    unknown = "不详"
    nothing_measured = "未检测"
    no_checkup = "无检查记录。"
    all_normal = "均在参考范围内"
    none_abnormal = "未发现超出已知参考范围的值"
    no_level = "各项均无偏高或偏低"

    def name(self, indicator: Indicator) -> str:  # noqa: D102
        return indicator.title or super().name(indicator)

    def amount(self, digits: str, unit: str) -> str:  # noqa: D102
        return f"{digits}{'×' if unit[:1].isdigit() else ''}{unit}"  # "3.5×10^12/L"

    def remark(self, text: str) -> str:  # noqa: D102
        return f"（{text}）" if text else ""

    def outside(self, excess: float) -> str:  # noqa: D102
        return ("偏低" if excess < 0 else "偏高") if excess else ""

    def level(self, side: str, degree: int) -> str:  # noqa: D102
        return _CHINESE_LEVELS[side][degree - 1]

    def counted(self, counts: Sequence[tuple[str, int]], k: int) -> str:  # noqa: D102
        return self.comma.join(f"{count}例为{label}" for label, count in counts)

    def listed(self, labels: Sequence[str]) -> str:  # noqa: D102
        return "由近及远依次为：" + self.semicolon.join(labels)

    def probabilities(self, pairs: Sequence[tuple[str, float]]) -> str:  # noqa: D102
        return self.comma.join(f"{label}{self.remark(f'{probability:.0%}')}" for label, probability in pairs)

    def when(self, days: int | None, whole: bool) -> str:  # noqa: D102
        if days is None:
            return "最近一次检查"
        return f"最近一次检查前{days}天" if whole else f"{days}天前"

    def line(self, what: str, items: str) -> str:  # noqa: D102
        return f"{what}：{items}。"

    def not_shown(self, n: int) -> str:  # noqa: D102
        return f"另有更早的检查{n}次，未列出。"

    def mean_levels(self, by_level: Mapping[str, Sequence[str]], n_more: int) -> str:  # noqa: D102
        parts = [f"{level}：{'、'.join(names)}" for level, names in by_level.items()]
        parts += [f"另有{n_more}项指标偏低或偏高"] if n_more else []
        return f"各次检查的均值：{self.semicolon.join(parts) or self.no_level}。"

    def earlier(self, n: int, trends: str, n_hidden: int) -> list[str]:  # noqa: D102
        lines = [f"此前{n}次检查，从首次到末次：{trends}。"] if trends else []
        return [*lines, *([f"此前{n}次检查未列出{n_hidden}项指标。"] if n_hidden else [])]

    def left_out(self, n: int) -> str:  # noqa: D102
        return f"最近一次检查未列出{n}个数值。"

    def once(self, name: str, digits: str, unit: str) -> str:  # noqa: D102
        return f"{name}仅一次{self.amount(digits, unit)}"

    def trend(self, name: str, first: str, last: str, unit: str, direction: int | None) -> str:  # noqa: D102
        verb, end = {None: ("至", ""), -1: ("降至", ""), 0: ("至", "，平稳"), 1: ("升至", "")}[direction]
        return f"{name}由{first}{verb}{self.amount(last, unit)}{end}"


ENGLISH, CHINESE = English(), Chinese()


def wording_in(language: str) -> English:
    """Return the words of prompts in a language, a BCP 47 tag; those of English where there are no others."""
    return CHINESE if is_chinese(language) else ENGLISH
