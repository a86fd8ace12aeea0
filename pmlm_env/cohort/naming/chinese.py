"""Deciding whether a Chinese text asserts, considers or denies that the patient has a condition that it mentions.

The statuses are those of ``pmlm_env.cohort.naming.english``, and so is the method: cues before and after a mention, and
words that end a cue's scope. A clause ends at a comma, a list goes on after 、
and in lines of items under a heading.

- Asserted: "诊断为A", "A确诊", "提示A", "既往有A病史".
- Possible: "可能为A", "考虑A", "疑似A", "A待排", "A可能", "A不除外", "不能排除A", "A？", "鉴别诊断：A、B",
  "需与A鉴别". A later confirmation overrides it ("疑似A，后经超声证实").
- Denied: "无A", "未见A", "否认A", "排除A", "A已除外", "不支持A", "A（-）", "A可能性小", "无A、B及C".
- Other: risk and prevention ("A风险", "预防A", "警惕A"), a condition ("如出现A", "是否有A"), a test ("行A筛查",
  "为排除A行…检查"), somebody else's ("母亲患A", "A家族史").

The characters of the cues may be simplified or traditional. Not recognized: denials that need more than one sentence,
irony, and wrong characters.
"""

from __future__ import annotations

import re

from pmlm_env.cohort.naming.items import heading_of
from pmlm_env.cohort.naming.status import Status

#: Characters examined on either side of a mention.
_CONTEXT = 160

#: Traditional characters that the cues have, and the simplified ones.
_SIMPLIFIED = str.maketrans(
    "無見認發現沒慮懷據證實險親關診斷傾類為與並併後備應還會錯過查對顯導監測風預誡個論確鑒別複檢進經陰陽現轉確癒腫術篩兒貧"
    "萬傳體幾員屬擬標終結狀緩輕達難須問議評誘請謹許遺爺媽將觀宮較隱來當於徵獲係鑑",
    "无见认发现没虑怀据证实险亲关诊断倾类为与并并后备应还会错过查对显导监测风预诫个论确鉴别复检进经阴阳现转确愈肿术筛儿贫"
    "万传体几员属拟标终结状缓轻达难须问议评诱请谨许遗爷妈将观宫较隐来当于征获系鉴",
)

#: Characters between a cue and the mention: the same clause, without words that end the cue's scope.
_SCOPE_ENDS = r"但|却|然而|而(?!且)|因(?!此)|由于|[，,]|(?<!鉴别)诊断[:：]"
_SCOPE = rf"(?:(?!{_SCOPE_ENDS}).){{0,24}}\Z"
#: The same for a denial, whose scope a finding ends, too: "无A、有B".
_DENIED_SCOPE = rf"(?:(?!{_SCOPE_ENDS}|(?<![没所患具])有(?!关)).){{0,24}}\Z"

_DENIAL = (
    r"(?:(?:无(?!法|论|需|须|效|疑|诱因|痛)|未(?:曾(?=患|有|得|诊|发|出现)|得过|见|发现|提示|诊断|合并|并发|伴|患|检出|查出|查见|探及|出现|发生|显示|达到?|确诊|及)|没有?"
    r"|否认|(?<!鉴别)排除|除外|不(?:支持|考虑|符合|存在|伴|合并|提示|诊断|是|属于|像)|并非|而非|(?<![并而是])非(?!常|典型)"
    r"|不足以诊断|不可能(?:是|为|有)?|可能性(?:小|不大|低)的?|缺乏)"
    r"(?:(?:患者|本人|自身|既往|以往|过去|曾经?|孕前|孕期|目前|明显|明确|存在|患)*有(?!关))?)"  # "否认既往有A"
)
#: A long list: "否认肝炎、结核、…、A".
_OF_ITEM = rf"(?:(?!{_SCOPE_ENDS}|有)[^、])"
_DENIED_ITEMS = re.compile(rf"{_DENIAL}(?:{_OF_ITEM}{{1,16}}、){{1,20}}{_OF_ITEM}{{0,8}}\Z")
#: Denials that a negation makes a possibility.
_EXCLUDE = r"(?:排除|除外)"
_NOT_EXCLUDED = rf"(?:不能|不可|不宜|无法|难以|未能?|尚未|尚不能|不|暂不|没有|并未)(?:完全|进一步|轻易)?{_EXCLUDE}"
#: A request: "需排除A", "请除外A", "待排除A".
_REQUEST = rf"(?:需|须|应|请|待|建议|有待)(?:要|先|进一步|首先|注意)?{_EXCLUDE}"
#: A test's purpose: "为排除A行超声检查".
_PURPOSE = rf"(?:为了?|(?<![可足难予])以|用于|旨在|拟)(?:便|求|进一步|明确)?{_EXCLUDE}"

_POSSIBILITY = (
    r"(?:可能(?!性(?:小|不大|低))(?:为|是|有|存在|系|合并|与)?|考虑|疑似|怀疑|疑诊|可疑|拟诊|拟|倾向于?|似(?:为|有|乎)?|或许|也许"
    r"|大概|初步诊断|疑(?!问|难)|不(?:能|可)否认|鉴别诊断(?:包括|有|为)?[:：]?)"
)
#: Not considered: "不考虑A", and a plan, not a diagnosis: "考虑行剖宫产".
_NOT_POSSIBLE = r"(?:不|未|无需|暂不)\Z"

_RELATIVE = (
    r"(?:(?:患者|孕妇|其)?之?(?:父母|母亲|父亲|妈妈|爸爸|祖父|祖母|外祖父|外祖母|爷爷|奶奶|外公|外婆|姐姐|妹妹|哥哥|弟弟|姐妹|兄弟|兄妹|姐弟|[大二三][哥姐]|儿子|女儿|子女"
    r"|丈夫|配偶|妻子|姑姑|舅舅|姨妈|叔叔|亲属|(?<![与和及向对经])家属|家人|[父母]系)|(?<![父母])其[父母]|家族(?:中|史)?)"
)
#: After a relative: "有A", "曾患A".
_HAS = r"(?:[：:，,]?\s*(?:均|都|曾|既往|也|亦)?(?:有|患有?|患过|得过|被?诊断为?|因|中有|成员有|为)?)"

_RISK_BEFORE = (
    r"(?:预防|防止|防治|避免|警惕|谨防|以防|当心|小心|注意(?!到)|筛查|监测|观察有无|排查|评估|易(?:发生|患|并发|出现|致)|增加"
    r"|可(?:能)?(?:会)?(?:导致|引起|诱发|发展为|进展为|并发|发生|出现)|将来(?:发生|患)|发展(?:为|成))"
)
_CONDITION = r"(?:如果?|若|倘若|假如|一旦|万一|是否|有无|有没有|当(?=出现|发生)|要是)"

#: Text after the mention: what belongs to its name.
_BRIDGE = (
    r"(?:症|病)?(?:[（(][A-Za-z][A-Za-z0-9-]{1,7}[）)])?(?:的)?"
    r"(?:诊断|病史|史|表现|征象|证据|可能|检查|筛查|检测|结果|症状|体征|情况|指标){0,2}"
)
#: Before "A的可能": "排除A的可能".
_NO_POSSIBILITY = rf"(?<![不能可法以未除])(?<!没有)(?:完全|已|基本|可以?)?{_EXCLUDE}(?:了|有|患)?\Z"
_ALL = r"(?:目前|现|均|都|皆|暂|亦|也|已经?|基本|可以?|被|予以?|后|最终|经\w{0,8}){0,3}"
_STOP = r"(?=\s*(?:[，,。.；;！!？?、）)\]】\n]|\Z|但|且))"
_DENIED_AFTER = re.compile(
    rf"{_BRIDGE}\s*[:：=（(\[]?\s*{_ALL}\s*(?:"
    rf"(?:无|否|未见|没有|不存在|未发现|未检出|未发生|未出现|不明显|不成立|不支持|不考虑|否认|阴性|[-\u2013\u2014\u2212－]){_STOP}"
    rf"|{_EXCLUDE}|阴性|(?:依据|证据)不足|不(?:成立|存在)|可能性(?:小|不大|很小|低|较低)|不可能|(?:已|基本)?(?:治愈|痊愈|消失|缓解)"
    r"|未(?:见|发现|检出|获证实|被证实|能证实))"
)
_FAMILY_AFTER = re.compile(r"(?:症|病)?(?:的)?(?:家族|遗传)(?:病)?史")
_RISK_AFTER = re.compile(
    r"(?:症|病)?(?:的)?(?:发生|发病|复发|相关)?(?:的)?(?:风险|危险|高危|几率|机率|概率|发生率|隐患|可能性(?=增|升|加|较?高|会))"
    r"|(?:症|病)?(?:的)?(?:发生|筛查|预防)(?!于|在|后|阳性)"
)
_POSSIBLE_AFTER = re.compile(
    rf"{_BRIDGE}\s*[:：，,]?\s*[（(]?\s*(?:尚|仍|亦|也|暂|均|都|还)?(?:"
    rf"{_NOT_EXCLUDED}|待(?:排|除外|查|定|确诊|证实|诊)|(?:有)?可能(?:性(?:大|较大|高))?{_STOP}|可疑|疑似{_STOP}"
    r"|[?？]|不(?:能|可)(?:否认|确定)|未(?:确诊|明确|能明确|能确诊)|需(?:要)?(?:排除|除外|鉴别)|拟诊)"
)
#: "需与A、B相鉴别"
_DIFFERENTIAL = re.compile(r"(?:与|和|同)[^，,]{0,40}\Z")
_DIFFERENTIAL_AFTER = re.compile(
    r"(?:症|病)?(?:[、及和或][^，,。；;]{1,16}){0,5}?(?:等\w{0,4}?)?(?:相|作|进行|加以)*鉴别"
)
_CONFIRMED_AFTER = re.compile(
    r"[^。；;！!？?\n]{0,12}?(?<!未)(?<!未能)(?<!待)(?<!没有)(?<!不能)(?<!尚未)(?:确诊|证实|明确诊断|诊断明确|诊断成立|得到确认)"
)
_POSITIVE_AFTER = re.compile(rf"{_BRIDGE}\s*[:：（(]?\s*(?:阳性|\+|＋|确诊|存在|明确)")

_SENTENCE = re.compile(r"[。！!？?；;\n]|\.(?!\d)")
_COMMA = re.compile(r"[，,]")
_JOINED = re.compile(r"\s*(?:、|和|及|以及|与|或|或者|/)\s*")
#: "否认A，B，C等病史": a list with commas, whose next item starts here, and how it ends.
_DENIED_LIST = re.compile(r"否认(?:(?!但|诊断).){0,40}[，,]\s*[及和与或]?\Z")
_END_OF_ITEM = re.compile(rf"{_BRIDGE}(?:等\w{{0,4}})?{_STOP}")


def status_of(text: str, start: int, end: int) -> Status:
    """Return what the text says of the condition that ``text[start:end]`` mentions.

    Args:
        text: Any text.
        start: Index of the mention's first character.
        end: Index after its last character.
    """
    sentence, clause, after = _context_of(text, start, end)
    if _FAMILY_AFTER.match(after) or re.search(rf"{_RELATIVE}{_HAS}{_SCOPE}", clause):
        return "other"
    if _DIFFERENTIAL.search(clause) and _DIFFERENTIAL_AFTER.match(after):
        return "possible"
    if _POSSIBLE_AFTER.match(after) and not re.search(rf"{_CONDITION}{_SCOPE}|{_NO_POSSIBILITY}", clause):
        return "asserted" if _CONFIRMED_AFTER.match(after) else "possible"
    if _DENIED_AFTER.match(after) and not _POSITIVE_AFTER.match(after):
        return "denied"
    if re.search(rf"{_CONDITION}{_SCOPE}", clause) or re.search(rf"{_RISK_BEFORE}{_SCOPE}", clause):
        return "other"
    if _RISK_AFTER.match(after) and not _POSITIVE_AFTER.match(after):
        return "other"
    if re.search(rf"{_PURPOSE}{_SCOPE}", clause):
        return "other"
    if re.search(rf"(?:{_NOT_EXCLUDED}|{_REQUEST}){_SCOPE}", clause):
        return "asserted" if _CONFIRMED_AFTER.match(after) else "possible"
    if re.search(rf"{_DENIAL}{_DENIED_SCOPE}", clause) or _DENIED_ITEMS.search(clause):
        return "denied"
    if _DENIED_LIST.search(sentence) and _END_OF_ITEM.match(after):
        return "denied"
    possible = _last(rf"{_POSSIBILITY}{_SCOPE}", clause)
    if possible is not None:
        if re.search(_NOT_POSSIBLE, clause[: possible.start()]):
            return "denied"
        return "asserted" if _CONFIRMED_AFTER.match(after) else "possible"
    return "asserted"


def extends_forward(text: str, last_end: int, last: Status, start: int, end: int) -> bool:
    """Whether what is said of the mention that ends at ``last_end`` holds for the next one too: "无A或B"."""
    return bool(_JOINED.fullmatch(text[last_end:start].translate(_SIMPLIFIED))) and not _POSITIVE_AFTER.match(
        text[end : end + _CONTEXT]
    )


def extends_backward(text: str, last_end: int, start: int, end: int) -> bool:
    """Whether what follows a mention also holds for the one that ends at ``last_end``: "A、B均已排除"."""
    after = _after(text, end)
    found = _DENIED_AFTER.match(after) or _POSSIBLE_AFTER.match(after)
    return bool(found) and _JOINED.fullmatch(text[last_end:start].translate(_SIMPLIFIED)) is not None


def _context_of(text: str, start: int, end: int) -> tuple[str, str, str]:
    """Return the sentence and the clause before a mention, and the text after it, in simplified characters."""
    before = (heading_of(text, start) or text[max(0, start - _CONTEXT) : start]).translate(_SIMPLIFIED)
    sentence = _SENTENCE.split(before)[-1]
    return sentence, _COMMA.split(sentence)[-1], _after(text, end)


def _after(text: str, end: int) -> str:
    """Return the text after a mention, in its line, in simplified characters."""
    return text[end : end + _CONTEXT].split("\n", 1)[0].translate(_SIMPLIFIED)


def _last(pattern: str, clause: str) -> re.Match[str] | None:
    """Return the match that starts last, so that of two cues the one nearest to the mention counts."""
    found = following = re.search(pattern, clause)
    while following is not None:
        found, following = following, re.compile(pattern).search(clause, following.start() + 1)
    return found
