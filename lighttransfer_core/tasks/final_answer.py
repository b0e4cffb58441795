"""The final answer of a solution: the last boxed expression or number, and when two ways of writing one are equal."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|,|!|;|:|quad| )|\\(?=[%$])|\^\{?\\circ\}?|[\s$%~]")


def final_answer_equals(answer: str, reference: str) -> bool:
    """Whether the answer ends in the reference: what it boxed last, or its last number if it boxed nothing."""
    said = last_boxed(answer)
    if said is None:
        found = _NUMBER.findall(answer)
        # Without a box, only a number can be told from the words around it.
        said = found[-1] if found and _value(normalised(reference)) is not None else ""
    if not said.strip():
        return False
    mine, theirs = normalised(said), normalised(reference)
    value = _value(mine)
    return mine == theirs or (value is not None and value == _value(theirs))


def last_boxed(answer: str) -> str | None:
    r"""What stands in the last complete \boxed{...}; None without one."""
    for start in reversed([match.end() for match in re.finditer(r"\\boxed\s*\{", answer)]):
        depth = 1
        for position in range(start, len(answer)):
            depth += {"{": 1, "}": -1}.get(answer[position], 0)
            if depth == 0:
                return answer[start:position]
    return None


def normalised(expression: str) -> str:
    """The expression without layout, units in text, or a name before an equals sign; fractions in one form."""
    text = re.sub(r"\\[dt]frac", r"\\frac", expression)
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    text = _LAYOUT.sub("", text).rstrip(".")
    text = re.sub(r"^[A-Za-z]\w*(?:=|\\in)", "", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\d)\{", r"\\frac{\1}{", text)
    return re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", text)


def _value(expression: str) -> Fraction | None:
    if _NUMBER.fullmatch(expression):
        return Fraction(Decimal(expression.replace(",", "")))
    quotient = re.fullmatch(r"(-?)\\frac\{(-?\d{1,99})\}\{(\d{1,99})\}|(-?\d{1,99})/(\d{1,99})", expression)
    if quotient is None:
        return None
    sign, above, below, plain_above, plain_below = quotient.groups()
    numerator, denominator = int(above or plain_above), int(below or plain_below)
    return Fraction(-numerator if sign else numerator, denominator) if denominator else None
