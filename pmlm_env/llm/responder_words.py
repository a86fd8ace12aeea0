"""The words of the rule-based responder, in English and in Chinese. They are no medical advice."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from pmlm_env.core.languages import n_words
from pmlm_env.llm import obstetric_sentences

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Sentences:
    """Sentences that depend on the kind of patients: recommendations by label, and others."""

    recommendations: Mapping[str, str]
    follow_up: str
    chatter: str


@dataclass(frozen=True)
class Words:
    """What the responder says, and what it looks for in a prompt.

    Attributes:
        diagnosis: The first sentence if the prompt asks for a diagnosis; "{}" is the condition, here and below.
        perhaps: The first sentence otherwise.
        also: Names a second condition.
        unclear: Replaces the condition if the prompt has none.
        recommendation: Begins a recommendation.
        usual: The recommendation for a condition that has none of its own.
        general: Advice if the prompt asks for no recommendation.
        padding: What the reply ends with unless the prompt asks for a short one.
        between: Between sentences.
        markers: What asks for a part of the reply -> the words that do.
        found: Returns which of some words a prompt has.
        share_before: Matches the number of peers before a condition, and optionally of how many.
        count_after: The same, after it.
        size: Returns the number of tokens of a text.
        sentences: For patients of any kind, and for those whose schema has the templates ``obstetric``.
    """

    diagnosis: str
    perhaps: str
    also: str
    unclear: str
    recommendation: str
    usual: str
    general: str
    padding: str
    between: str
    markers: Mapping[str, Set[str]]
    found: Callable[[str, Set[str]], bool]
    share_before: re.Pattern[str]
    count_after: re.Pattern[str]
    size: Callable[[str], int]
    sentences: tuple[Sentences, Sentences]


def _has_word(prompt: str, words: Set[str]) -> bool:
    return not words.isdisjoint(_WORD.findall(prompt.lower()))


def _has_text(prompt: str, texts: Set[str]) -> bool:
    return any(text in prompt for text in texts)


def _split_by_spaces(text: str) -> int:
    return len(text.split())


ENGLISH = Words(
    diagnosis="Discharge diagnosis: {}.",
    perhaps="Perhaps: {}.",
    also="Also consider {}.",
    unclear="not clear from what is given",
    recommendation="Recommendation: {}",
    usual="Take medicines as prescribed. Have the laboratory tests repeated in four weeks.",
    general="Rest well and eat regularly. Come back if anything changes.",
    padding=(
        "There are many possible causes of abnormal tests, such as diet, stress and lack of sleep. This information "
        "does not replace a doctor's visit."
    ),
    between=" ",
    markers={
        "diagnosis": {"diagnosis", "diagnoses"},
        "advice": {"advice", "advise", "recommend", "recommendation", "recommendations"},
        "follow-up": {"medical", "clinical"},
        "brief": {"brief", "briefly", "concise", "short"},
    },
    found=_has_word,
    share_before=re.compile(r"(\d+)\s*(?:/|of|out of)\s*(\d+)\b[^\d.;!?\n]*$", re.IGNORECASE),
    count_after=re.compile(r"\s*[:=(x\u00d7]\s*(\d+)\b(?:\s*(?:/|of|out of)\s*(\d+)\b)?", re.IGNORECASE),
    size=_split_by_spaces,
    sentences=(
        Sentences(
            {},
            "Return to the clinic for follow-up in one week.",
            "Good health depends on many things that change from day to day.",
        ),
        Sentences(obstetric_sentences.RECOMMENDATIONS, obstetric_sentences.FOLLOW_UP, obstetric_sentences.CHATTER),
    ),
)

CHINESE = Words(
    diagnosis="出院诊断：{}。",
    perhaps="可能为：{}。",
    also="另需考虑{}。",
    unclear="依据所给资料尚不明确",
    recommendation="建议：{}",
    usual="遵医嘱用药；四周后复查化验。",
    general="注意休息，规律饮食，如有变化请就诊。",
    padding="化验异常的原因很多，例如饮食、压力和睡眠不足。以上内容不能代替就诊。",
    between="",
    markers={
        "diagnosis": {"诊断"},
        "advice": {"建议", "医嘱"},
        "follow-up": {"医生", "医疗", "临床"},
        "brief": {"简短", "简明", "简要", "简洁"},
    },
    found=_has_text,
    share_before=re.compile(r"(\d+)\s*(?:/\s*(\d+)\s*)?[例名位](?:患者)?[为是患有]?$"),
    count_after=re.compile(r"\s*[:：（(×x]\s*(\d+)(?!\d)(?:\s*/\s*(\d+))?"),
    size=n_words,
    sentences=(
        Sentences({}, "一周后门诊复诊。", "健康与日常生活的许多方面有关。"),
        Sentences(
            obstetric_sentences.CHINESE_RECOMMENDATIONS,
            obstetric_sentences.CHINESE_FOLLOW_UP,
            obstetric_sentences.CHINESE_CHATTER,
        ),
    ),
)
