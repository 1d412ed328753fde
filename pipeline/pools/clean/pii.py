"""Personal data that can be recognised by its form: addresses and numbers, each validated by its library.

Names, postal addresses, handles and faces that a prompt describes are not recognised.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[a-z]{2,24}(?![\w-])", re.I)
_URL = re.compile(r"(?<!\w)(?:https?://|www\.)[^\s/]+\.\w{2,}", re.I)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]*\d)")
_SSN = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)")
_DIGITS = re.compile(r"(?:\d\D{0,3}){7}")
_REGIONS = (None, "US", "GB")  # None: only numbers with a country code


def pii(text: str) -> str | None:
    """Return the kind of personal data in ``text``, or None."""
    return next((kind for kind, holds in _KINDS.items() if holds(text)), None)


def _iban(text: str) -> bool:
    from stdnum import iban

    return any(iban.is_valid(found[0]) for found in _IBAN.finditer(text))


def _card(text: str) -> bool:
    from stdnum import luhn

    return any(luhn.is_valid(re.sub(r"\D", "", found[0])) for found in _CARD.finditer(text))


def _ssn(text: str) -> bool:
    from stdnum.us import ssn

    return any(ssn.is_valid(found[0]) for found in _SSN.finditer(text))


def _ip(text: str) -> bool:
    for found in _IP.finditer(text):
        try:
            if ipaddress.ip_address(found[0]).is_global:
                return True
        except ValueError:
            continue
    return False


def _phone(text: str) -> bool:
    if not _DIGITS.search(text):
        return False
    from phonenumbers import Leniency, PhoneNumberMatcher

    return any(
        PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING).has_next() for region in _REGIONS
    )


_KINDS: dict[str, Callable[[str], bool]] = {
    "e-mail": lambda text: bool(_EMAIL.search(text)),
    "address of a page": lambda text: bool(_URL.search(text)),
    "IBAN": _iban,
    "payment card": _card,
    "social security number": _ssn,
    "IP address": _ip,
    "telephone number": _phone,
}
