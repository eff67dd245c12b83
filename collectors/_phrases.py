"""The words in which servers of many makes and languages say that mail failed or waits, and how they name people."""

from __future__ import annotations

import re

from collectors._addresses import ADDRESS


class Phrases:
    """Some phrases, in lower case. Looked for one by one: a pattern of them all takes five times as long."""

    def __init__(self, phrases: str) -> None:
        """``phrases`` are parted by bars and ends of lines."""
        self._phrases = tuple(one.strip() for line in phrases.split("\n") for one in line.split("|") if one.strip())

    def among(self, lower: str) -> bool:
        """Whether any of them is in a text in lower case."""
        for phrase in self._phrases:  # noqa: SIM110  # `any` takes a third longer, and this is asked most of all
            if phrase in lower:
                return True
        return False

    def places(self, lower: str, limit: int = 100) -> list[int]:
        """Where in the text they begin, in order; at most so many of each."""
        found: list[int] = []
        for phrase in self._phrases:
            place = lower.find(phrase)
            seen = 0
            while place >= 0 and seen < limit:
                found.append(place)
                place = lower.find(phrase, place + 1)
                seen += 1
        return sorted(found)


# Each announces that mail was not delivered. Lower case; as of 2026-11.
FAILED = Phrases(
    """
    not be delivered | n't be delivered | cannot be delivered | not delivered | undeliver | unable to deliver
    able to deliver | not deliver | failed to deliver | delivery failed | delivery fail | delivery has failed
    delivery of your message | ry to the following | failed permanently | failed because | permanent fatal
    fatal error | permanent delivery | permanent error | delivery error | delivery problem | did not reach
    not be reached | could not reach | non-deliver | nondelivery | failed recipient | failed address
    failure reason | mail failed | failed mail | returned mail | returned to sender | returning message
    error delivering | error sending | trouble delivering | attempting to deliver | was rejected | rejected by
    rejected recipient | did not receive | not receive a copy | no such user | user unknown | unknown user
    user not known | invalid user | mailbox exceeds | mailbox is full | no longer valid | final delivery userid
    account is disabled | was aborted | wasn't delivered | weren't able to | did not exactly match
    been delivered | no mailbox here | automatically rejected | no valid recipients | unsuccessful delivery
    quota violation | transcript of session | returned message | delivery report unavailable | message blocked
    transient non-fatal | failed to reach | unreachable | unknown recipient | delivery refused | not deliverable
    not a member of this mailing list | are not member | may cause mail loop | duplicated message-id
    address failed | addresses failed | address(es) failed | recipients failed | recipient failed
    could not be sent | xmail bounce | address not found | been delayed | is delayed | recipient not found | error(s):
    unknown host | host unknown | permanently rejected | undelivered | non-deliverable
    nicht zugestellt | unzustellbar | zustellung fehlgeschlagen | konnte nicht | nicht zustellbar
    fehler bei der nachrichtenzustellung | fehler bei der zustellung | zustellungsfehler | zustellfehler
    niet worden bezorgd | niet bezorgd | onbestelbaar | bezorging is mislukt | kan niet worden | kon niet worden
    kunde inte levereras | inte att leverera | inte levereras | kunne ikke leveres | mislykkedes | mislyktes
    ei voitu toimittaa | toimitus epäonnistui | toimittaminen epäonnistui
    pas pu être | pas été remis | non remis | échec de la remise | échec de remise | non distribu | pas été distribu
    no se ha podido entregar | no se pudo entregar | no pudo ser entregado | no entregado | no se puede entregar
    error en la entrega | ha fallado la entrega | no ha sido entregado
    nao pode ser | não pode ser entregue | não pôde ser | não foi entregue | falha na entrega
    possibile recapitare | recapito non riuscito | stato recapitato | stato consegnato | consegna non riuscita
    mancato recapito | non recapitabile | impossibile consegnare | non consegnat
    nie można dostarczyć | nie została dostarczona | niedostarczon | nie dostarczono | nie mogła zostać
    nie mógł doręczyć | nie powiodło się | nie powiodła się | dostarczenie wiadomości | nie udało się dostarczyć
    nie zostala dostarczona | nie mogla zostac
    nebylo možné doručit | nelze doručit | doručení se nezdařilo | nepodařilo doručit | nelze doruč
    nem sikerült kézbesíteni | kézbesítése sikertelen | nem kézbesíthető | teslim edilemedi | iletilemedi
    nu a putut fi livrat
    δεν ήταν δυνατή η παράδοση | nedoručen | nedoručiteln | nepodarilo doručiť | nemohla být doručena
    не может быть доставлено | не доставлено | не удалось доставить | не была доставлена | не было доставлено
    сбой доставки | невозможно доставить | не вдалося доставити | недоставлен
    送信できません | 配信できません | 配信できませんでした | 送信できませんでした | 配達できません | 配信不能
    失敗しました | 配送できません | 送信に失敗 | お届けできません | エラーのため | 届きません
    无法发送 | 无法送达 | 无法投递 | 未能送达 | 未能投递 | 传递失败 | 傳遞失敗 | 发送失败 | 無法送達 | 未送达
    投递失败 | 退信 | 退回 | 無法傳送 | 無法遞送 | 傳送失敗 | 传输失败 | 送達失敗
    배달되지 | 배달하지 못 | 전달하지 못 | 보내지 못 | 전송되지 | 전달되지 | 반송
    """
)

# A refusal for good, in the form in which servers write it whatever the language around it.
REFUSED = re.compile(r"(?<![\d.])5\d\d[ -]#?5\.\d{1,3}\.\d{1,3}(?![\d.])")

# The message waits, and is tried again: no bounce.
DELAYED = Phrases(
    """
    warning message only | has been delayed | is delayed | delayed mail | not yet been delivered | still being retried
    delivery attempts will continue | will be retried | will keep trying | continue to attempt delivery
    will continue to be made | will try again | still trying to deliver | just a warning | delivery delayed
    could not send message for past | could not send mail for past | delivery status notification (delay)
    not need to resend | no need to resend | delivery will be reattempted | continue trying | wird erneut versucht
    verzögert | vertraagd | wordt opnieuw | fördröjd | forsinket | viivästy
    retardée | demorado | opóźnion | zpožděn | задержан | 遅延 | 延迟 | nadal próbuje
    """
)
# The same where they begin a subject, or are all of it.
DELAYED_SUBJECT = re.compile(
    r"^(?:warning.{0,80}(?:could not|not yet|not been|delay|still|past \d)|delay|delivery (?:delay|warning)"
    r"|zustellung verz|livraison retard)"
    r"|\(delay(?:ed)?\)|not yet delivered|delivery status notification ?\(delay|has been delayed|still trying",
    re.IGNORECASE,
)
# "In the queue too long": the message was tried until its time was over.
EXPIRED = Phrases(
    """
    in the queue too long | retry timeout exceeded | retry time not reached | envelope expired | giving up after
    message expired | delivery time expired | was aborted after | have been failing for a long time | delivery expired
    could not be delivered for | cannot send message within | cannot send message for | could not deliver for
    multiple retries | message timed out | queue time | retry time | too long in queue | allowed queue period
    was not delivered within | exceeded maximum time | maximum retry | timeout for delivery | delivery timed out
    time limit exceeded | maximum number of delivery attempts | not been collected after | failed 20 attempts
    """
)

# Below such a line stands what came back.
END = re.compile(
    r"^[ \t>|*=~_.#-]{0,60}(?:"
    r"below this line is a copy|enclosed is a copy|(?:this|here) is a copy of|a copy of the original|"
    r"(?:the )?(?:headers?|body|message text|text) of (?:the|your)|(?:start of )?returned (?:message|mail)\b[ -]*$|"
    r"original (?:message|mail)(?: (?:follows|headers?|attached|is attached|as received)|[ :-]*$|.{0,12}$)|"
    r"unsent message|message headers? follow|message text follows|below is a copy|included is a copy|"
    r"the header of the original|header of your|a summary of the undelivered|your message reads|"
    r"mensaje original|message d'origine|ursprüngliche nachricht|wiadomość oryginalna|"
    r"originalnachricht|original mail info|start of returned|message body suppressed|non-delivered message|"
    r"returned content|undelivered message|the following is a copy|附件中|元のメッセージ|原邮件|old message:"
    r")[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)

# Who writes bounces, by the name or address of a From; and who may, though others call themselves so as well.
DAEMON = re.compile(
    r"mailer[-_. ]?daemon|post_?master|mail[-_. ]?(?:deliver|system|administrator|router|transfer|transport)"
    r"|courier mail server"
    r"|\bmdaemon|delivery.?(?:sub)?system|^\s*$|^<>$|imss|interscan"
    r"|smtp_mail|mailsystem|symantec|mmsc|mail\.delivery|microsoft exchange"
    r"|mailmarshal|system admin",
    re.IGNORECASE,
)
MACHINE = re.compile(
    r"bounce|no-?reply|gateway|mailadm|^\"?<?admin|-admin@|daemon|exchange|\bmta\b|mail[-_. ]?admin|abuse|noc@|root@",
    re.IGNORECASE,
)
SUBJECT = re.compile(
    r"undeliver|delivery|failure|failed|returned|returning|mail (?:system )?error|non[- ]?deliver|not (?:be )?deliver"
    r"|bounce|rejected|non remis|not member|fml system|security alert"
    r"|unzustellbar|nicht zugestellt|zustell|niedostar|nedoru|не доставлено|недостав|mancata consegna|mancato recapito"
    r"|no entregad|devuelt|エラー|配信|不達|退信|失败|失敗|error sending|user unknown|unknown user|postmaster|remis\b",
    re.IGNORECASE,
)

# Subjects that mail systems give to bounces, and nobody to parcels.
BOUNCED_SUBJECT = re.compile(
    r"^(?:mail (?:delivery (?:fail|problem|error)|system error|could not|failure)"
    r"|undeliver(?:able|ed) ?(?:mail|message|:)|returned (?:mail|to sender)"
    r"|failure notice|delivery (?:status )?notification|(?:permanent )?delivery failure:?"
    r"|non[- ]?delivery|unzustellbar|non remis|onbestelbaar"
    r"|mail (?:undeliverable|returned)|there was an error sending)",
    re.IGNORECASE,
)

# A person who answers or passes on.
ANSWER = re.compile(r"\s*(?:re|aw|sv|vs|antw|odp|ha|fwd?|wg|tr|rv|enc)\s?(?:\[\d+\])?[:：]", re.IGNORECASE)  # noqa: RUF001  # as they write it

# Lines that name somebody else than a failed recipient.
ASIDE = re.compile(
    r"^[\s>*|(-]*(?:(?:mail )?from\b|sender|to:|cc:|bcc:|subject:|sent:|date:|reply|contact|original sender"
    r"|message sent by|a message (?:that )?(?:was )?sent by|please|for (?:further|more)|if you|help|https?:)"
    r"|generated from|expanded from|contact|assistance|postmaster@|abuse@|support@|helpdesk|mail from:"
    r"|send (?:mail|e-mail) to|<<<|>>> (?:mail|data|helo|ehlo)",
    re.IGNORECASE,
)
ALIASED = re.compile(r"\((?:ultimately )?(?:generated|expanded) from:? ", re.IGNORECASE)

_A = ADDRESS.pattern
_BEFORE = (
    r"[\s>*|\"'\[(<-]{0,30}"
    r"(?:(?:smtp|mailto|rfc822|to|rcpt to|addressed to|address|recipient|failed recipient)[:;=]\s{0,9}[\[<\"']{0,3})?"
)
# A line that is nothing but an address, in whatever dress.
ALONE = re.compile(
    rf"^{_BEFORE}(?:smtp:)?({_A})[>\"')\]*]{{0,4}}(?:\s{{1,9}}<({_A})>)?[\s:;.,>*\])-]{{0,80}}$", re.IGNORECASE
)
# A line that begins with one, and goes on to say what of it.
LEADING = re.compile(
    rf"^[\s>*|<\[\"'-]{{0,30}}({_A})[>\"'\]]{{0,3}}(?:\s{{0,9}}(?::|\(|\[|\.\.\.|;|,(?=\s)|-\s|on\s|invalid\s|failed|was\s|is\s|does\s)|\s{{2,9}})(.*)$",
    re.IGNORECASE,
)
# X.400 and the like: "c=US;a= ;p=…;dda:SMTP=someone@example.com; on Fri, …".
X400 = re.compile(rf"^\s{{0,9}}c=[A-Za-z]{{0,3}};.{{0,200}}SMTP=({_A})", re.IGNORECASE)
