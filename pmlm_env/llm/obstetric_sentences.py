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

#: By label of the schema ``obstetric-zh``.
CHINESE_RECOMMENDATIONS: Mapping[str, str] = {
    "正常": "均衡饮食，适度活动；按时产检。",
    "瘢痕子宫": "超声检查瘢痕厚度；尽早商定分娩方式。",
    "急性胎儿窘迫（胎心型）": "左侧卧位并吸氧；每日复查胎心监护。",
    "妊娠合并胎盘功能不良": "每日自数胎动；每周超声检查胎盘血流和胎儿发育。",
    "妊娠期高血压": "每日测血压两次；限盐，有头痛或视物模糊时及时告知医生。",
    "胎膜早破": "卧床并抬高臀部；观察体温和羊水。",
    "妊娠合并甲状腺功能减退": "遵医嘱服用左甲状腺素；每四周复查促甲状腺激素。",
    "子宫破裂": "两年内避免再次妊娠；腹痛或出血时立即就诊。",
    "急性胎儿窘迫（羊水型）": "观察新生儿呼吸；超声随访羊水。",
    "脐带缠绕": "每日自数胎动；分娩前复查脐带。",
    "地中海贫血": "每月复查血红蛋白；配偶检查并作遗传咨询。",
    "妊娠期糖尿病": "糖尿病饮食，餐后散步；监测空腹和餐后血糖。",
}
CHINESE_FOLLOW_UP = "一周后产科门诊复诊。"
CHINESE_CHATTER = "妊娠会给身心带来许多变化。"
