"""What the responder says to obstetric patients. It is no medical advice."""

from __future__ import annotations

from collections.abc import Mapping

#: By label of the schema ``obstetric``.
RECOMMENDATIONS: Mapping[str, str] = {
    "normal": "Keep a balanced diet and regular gentle exercise. Continue routine antenatal visits.",
    "uterine scar": "Have the thickness of the scar checked by ultrasound. Discuss the mode of delivery early.",
    "acute fetal distress (heart type)": "Lie on the left side and take oxygen. Repeat fetal heart monitoring daily.",
    "pregnancy complicated with placental dysfunction": (
        "Count fetal movements every day. Check placental blood flow and fetal growth by ultrasound each week."
    ),
    "gestational hypertension": "Measure blood pressure twice a day. Limit salt and report headache or blurred vision.",
    "premature rupture of membranes": "Stay in bed with the hips raised. Watch temperature and amniotic fluid.",
    "pregnancy complicated with hypothyroidism": "Take levothyroxine as prescribed. Recheck TSH every four weeks.",
    "uterine rupture": "Avoid another pregnancy for two years. Come at once with abdominal pain or bleeding.",
    "acute fetal distress (amniotic fluid type)": (
        "Have the newborn's breathing observed. Follow the amniotic fluid by ultrasound."
    ),
    "umbilical cord entanglement": "Count fetal movements every day. Recheck the cord by ultrasound before delivery.",
    "thalassemia": "Recheck haemoglobin every month. Have the partner tested and seek genetic counselling.",
    "gestational diabetes": "Follow a diabetic diet and walk after meals. Monitor fasting and post-meal glucose.",
}
FOLLOW_UP = "Return to the obstetric clinic for follow-up in one week."
CHATTER = "Pregnancy is a special time that brings many changes to body and mind."
