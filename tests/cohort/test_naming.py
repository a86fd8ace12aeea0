"""Which labels a text names."""

from __future__ import annotations

import itertools

import pytest

from pmlm_env.cohort.naming.labels import named_labels
from pmlm_env.cohort.naming.mentions import find_mentions
from pmlm_env.core.labels import Label
from tests.schemas import LABELS

NORMAL = LABELS[0]
DIABETES = (Label("diabetes"), Label("gestational diabetes"))
WELL = (Label("well", ("nothing was found",), no_finding=True), Label("gout", ("podagra",)))


def named(text: str) -> set[str]:
    """The obstetric labels that a text names."""
    return named_labels(text, LABELS)


@pytest.mark.parametrize("label", LABELS[1:], ids=lambda label: label.name)
def test_each_label_is_named_by_itself_and_its_aliases_and_names_no_other(label) -> None:
    for phrase in (label.name, *label.aliases):
        assert named(f"Discharge diagnosis: {phrase.upper()}.") == {label.name}


def test_normal_is_named_by_its_aliases_only() -> None:
    assert named_labels("A normal diet. All normal.", [NORMAL]) == set()
    assert named_labels("No abnormality was found.", [NORMAL]) == {"normal"}


def test_no_abnormality_beside_a_diagnosis_does_not_name_normal() -> None:
    assert named("Thalassemia. Ultrasound: no abnormality.") == {"thalassemia"}


def test_any_label_without_a_finding_is_named_by_its_aliases_and_where_no_other_is() -> None:
    assert named_labels("Get well soon. It is well known.", WELL) == set()
    assert named_labels("Nothing was found.", WELL) == {"well"}
    assert named_labels("Podagra; else nothing was found.", WELL) == {"gout"}


def test_a_label_called_normal_is_a_label_like_any_other_unless_it_says_that_nothing_was_found() -> None:
    assert named_labels("Diagnosis: normal.", (Label("normal"),)) == {"normal"}
    assert named_labels("No abnormality.", (Label("normal"),)) == set()


def test_the_longest_label_wins() -> None:
    assert named_labels("They have gestational diabetes.", DIABETES) == {"gestational diabetes"}


def test_a_shorter_label_is_named_where_it_stands_alone() -> None:
    assert named_labels("Diabetes, then gestational diabetes.", DIABETES) == {"diabetes", "gestational diabetes"}


def test_the_order_of_labels_is_of_no_account() -> None:
    labels = [Label(name) for name in ("a", "a b", "b c", "a b c", "c")]
    found = {frozenset(named_labels("x a b c x", order)) for order in itertools.permutations(labels)}
    assert found == {frozenset({"a b c"})}


def test_phrases_that_overlap_in_part_are_both_named() -> None:
    assert named_labels("a b c", (Label("a b"), Label("b c"))) == {"a b", "b c"}


def test_one_label_asked_for_alone_has_no_rival() -> None:
    assert named_labels("gestational diabetes", DIABETES[:1]) == {DIABETES[0].name}


@pytest.mark.parametrize("text", ["compromised", "PROMs", "prom_date", "aprom"])
def test_a_part_of_a_word_names_nothing(text: str) -> None:
    assert named(text) == set()


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("kidney stone", "Kidney stones."), ("kidney stones", "A kidney stone."), ("stroke", "After two strokes."),
        ("Stroke", "After two STROKES."), ("peripheral neuropathy", "Peripheral neuropathies."),
        ("nappy rash", "Nappy rashes."), ("uterine fibroids", "A large uterine fibroid was seen."),
    ],
)  # fmt: skip
def test_singular_and_plural_name_the_same(label: str, text: str) -> None:
    assert named_labels(text, [Label(label)]) == {label}


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("AIDS", "Give first aid."), ("aids", "Give first aid."), ("PROM", "Fill in the PROMs."),
        ("mass", "The mas."), ("lupus", "Lupu."), ("sepsis", "Sepsi."), ("caries", "Dear Cary,"),
        ("stroke", "Strokesis."), ("kidney stone", "Kidney stoness."),
    ],
)  # fmt: skip
def test_a_word_that_only_looks_like_another_number_names_nothing(label: str, text: str) -> None:
    assert named_labels(text, [Label(label)]) == set()


def test_labels_that_differ_in_number_are_each_named_by_their_own() -> None:
    both = [Label("brain tumor"), Label("brain tumors")]
    assert named_labels("A brain tumor.", both) == {"brain tumor"}
    assert named_labels("Brain tumors.", both) == {"brain tumors"}


@pytest.mark.parametrize("text", ["(PROM)", "PROM.", "prom\n", "/PROM-"])
def test_punctuation_ends_a_word(text: str) -> None:
    assert named(text) == {"premature rupture of membranes"}


@pytest.mark.parametrize(
    "text",
    ["gestational\n  diabetes", "**Gestational diabetes**", "pre\u2011eclampsia", "pregnancy induced hypertension"],
)
def test_line_breaks_markup_and_kinds_of_hyphen_are_of_no_account(text: str) -> None:
    assert len(named(text)) == 1


@pytest.mark.parametrize("apostrophe", ["'", "\u2019", "\u2018", "\u02bc", "`", "\u00b4"])
def test_kinds_of_apostrophe_are_of_no_account_in_text_or_label(apostrophe: str) -> None:
    assert named_labels(f"Crohn{apostrophe}s disease", (Label("Crohn's disease"),)) == {"Crohn's disease"}
    label = Label(f"Crohn{apostrophe}s\u2011disease")
    assert named_labels("Crohn's disease", (label,)) == {label.name}


@pytest.mark.parametrize("hyphen", ["-", "\u2011", "\u2010", " "])
def test_a_longer_term_with_a_prefix_is_another_condition(hyphen: str) -> None:
    labels = tuple(map(Label, ("diabetes", "gout", "Hodgkin lymphoma", "non-smoker")))
    assert named_labels(f"Pre{hyphen}diabetes, pseudo{hyphen}gout, non{hyphen}Hodgkin lymphoma.", labels) == set()
    assert named_labels(f"A non{hyphen}smoker with post-gout pain, gout-related.", labels) == {"non-smoker", "gout"}


@pytest.mark.parametrize("text", ["A gout-like pain.", "He is gout-free.", "He is gout free."])
def test_what_is_like_a_condition_or_free_of_it_is_not_named(text: str) -> None:
    assert named_labels(text, (Label("gout"),)) == set()


def test_chinese_labels_are_found_within_chinese_text() -> None:
    labels = [Label(name) for name in ("糖尿病", "妊娠期糖尿病", "GDM")]
    assert named_labels("诊断为妊娠期糖尿病。", labels) == {"妊娠期糖尿病"}
    assert named_labels("诊断为GDM。", labels) == {"GDM"}


@pytest.mark.parametrize("label", ["a+b", "c(d", "[e]", "x|y", "back\\slash"])
def test_a_label_is_no_regular_expression(label: str) -> None:
    assert named_labels(f"has {label} now", (Label(label),)) == {label}


def test_blank_labels_and_no_labels_name_nothing() -> None:
    assert named_labels("anything at all", (Label(""), Label("gout", (" ",)))) == set()
    assert named_labels("anything at all", ()) == set()


def test_a_phrase_of_two_labels_names_both() -> None:
    assert [m.label for m in find_mentions("GDM", {"a": ("gdm",), "b": ("GDM",)})] == ["a", "b"]


def test_mentions_say_where() -> None:
    text = "Thalassaemia; no GDM"
    phrases = {label.name: label.aliases for label in LABELS}
    assert [(text[m.start : m.end], m.status) for m in find_mentions(text, phrases)] == [
        ("Thalassaemia", "asserted"),
        ("GDM", "denied"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "No evidence of gestational diabetes.",
        "There is no sign of any gestational diabetes",
        "She does not have gestational diabetes.",
        "She doesn\u2019t have gestational diabetes.",
        "Delivered without gestational diabetes.",
        "A glucose test to rule out gestational diabetes.",
        "Gestational diabetes was ruled out.",
        "Gestational diabetes has been excluded",
        "Gestational diabetes is unlikely.",
        "Gestational diabetes: not detected",
        "Negative for gestational diabetes",
        "No thalassemia, uterine scar, or gestational diabetes.",
        "Neither thalassemia nor gestational diabetes",
    ],
)
def test_a_denied_condition_is_not_named(text: str) -> None:
    assert named(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "No fever. Gestational diabetes.",
        "No fever, gestational diabetes confirmed.",
        "No complications\nGestational diabetes",
        "No complications - gestational diabetes",
        "No proteinuria but gestational diabetes",
        "Not only anaemia and gestational diabetes",
        "No doubt this is gestational diabetes",
        "Gestational diabetes without complications",
        "Gestational diabetes is not controlled.",
        "No. 1: gestational diabetes",
        "Know that gestational diabetes passes",
        "There is no need to wait any longer before treating gestational diabetes",
        "No sign of gestational diabetes at first; gestational diabetes later.",
    ],
)
def test_what_is_denied_elsewhere_leaves_the_condition_named(text: str) -> None:
    assert named(text) == {"gestational diabetes"}
