"""Chapters of the International Classification of Diseases, to which diagnosis codes are reduced as labels.

The names are those of ICD-10 (WHO; icd.who.int/browse10). The chapters of ICD-9-CM (CDC;
cdc.gov/nchs/icd/icd9cm.htm) have the same contents, apart from that of the nervous system and sense organs, which
ICD-10 splits in three.
"""

from __future__ import annotations

import re

_INFECTION = "infectious and parasitic diseases"
_NEOPLASM = "neoplasms"
_BLOOD = "diseases of the blood and immune mechanism"
_ENDOCRINE = "endocrine, nutritional and metabolic diseases"
_MENTAL = "mental and behavioral disorders"
_NERVES = "diseases of the nervous system"
_EYE = "diseases of the eye"
_EAR = "diseases of the ear"
_CIRCULATION = "diseases of the circulatory system"
_BREATHING = "diseases of the respiratory system"
_DIGESTION = "diseases of the digestive system"
_SKIN = "diseases of the skin"
_MUSCLES = "diseases of the musculoskeletal system"
_URINARY = "diseases of the genitourinary system"
_PREGNANCY = "pregnancy, childbirth and the puerperium"
_PERINATAL = "conditions originating in the perinatal period"
_CONGENITAL = "congenital malformations"
_SYMPTOMS = "symptoms and abnormal findings"
_INJURY = "injury, poisoning and other external consequences"
_EXTERNAL = "external causes"
_FACTORS = "factors influencing health status"
_SPECIAL = "codes for special purposes"

#: The last category of each chapter, in order; a category is the first three characters of a code.
_ICD10 = (
    ("B99", _INFECTION),
    ("D49", _NEOPLASM),
    ("D89", _BLOOD),
    ("E90", _ENDOCRINE),
    ("F99", _MENTAL),
    ("G99", _NERVES),
    ("H59", _EYE),
    ("H95", _EAR),
    ("I99", _CIRCULATION),
    ("J99", _BREATHING),
    ("K95", _DIGESTION),
    ("L99", _SKIN),
    ("M99", _MUSCLES),
    ("N99", _URINARY),
    ("O9Z", _PREGNANCY),
    ("P96", _PERINATAL),
    ("Q99", _CONGENITAL),
    ("R99", _SYMPTOMS),
    ("T98", _INJURY),
    ("U99", _SPECIAL),
    ("Y99", _EXTERNAL),
    ("Z99", _FACTORS),
)
_ICD9 = (
    (139, _INFECTION),
    (239, _NEOPLASM),
    (279, _ENDOCRINE),
    (289, _BLOOD),
    (319, _MENTAL),
    (359, _NERVES),
    (379, _EYE),
    (389, _EAR),
    (459, _CIRCULATION),
    (519, _BREATHING),
    (579, _DIGESTION),
    (629, _URINARY),
    (679, _PREGNANCY),
    (709, _SKIN),
    (739, _MUSCLES),
    (759, _CONGENITAL),
    (779, _PERINATAL),
    (799, _SYMPTOMS),
    (999, _INJURY),
)


def chapter(code: str, version: str) -> str:
    """Return the chapter of a diagnosis code.

    Args:
        code: The code, with or without its point.
        version: "9" or "10".

    Returns:
        The name of the chapter; "" if it is not a code of that version.
    """
    code = code.strip().upper().replace(".", "")
    if version == "10":
        if not re.fullmatch(r"[A-Z]\d[0-9A-Z].*", code):
            return ""
        return next((name for last, name in _ICD10 if code[:3] <= last), "")
    if version == "9":
        if re.match(r"V\d\d", code):
            return _FACTORS
        if re.match(r"E\d\d\d", code):
            return _EXTERNAL
        if re.match(r"\d\d\d", code) and int(code[:3]) > 0:
            return next((name for last, name in _ICD9 if int(code[:3]) <= last), "")
    return ""


def icd_version(code: str) -> str:
    """Return the version that a code without one must be of: "9", "10", or "" if it can be neither or either.

    Without a point, codes that begin with E or V and continue with three digits may be of either; with one, its place
    tells E11.9 (10) from E885.9 (9).
    """
    code = code.strip().upper()
    if point := re.fullmatch(r"E(\d{2,3})\.\d{1,2}", code):
        return "10" if len(point[1]) == 2 else "9"
    code = code.replace(".", "")
    if re.fullmatch(r"\d{3,5}", code):
        return "9"
    if re.fullmatch(r"[A-Z]\d[0-9A-Z]([0-9A-Z]{0,4})", code):
        return "" if re.fullmatch(r"E\d{3,4}|V\d{2,4}", code) else "10"
    return ""
