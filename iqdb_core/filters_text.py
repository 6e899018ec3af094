"""Filters as expressions, and back.

Grammar (EBNF; keywords in any case; white space between tokens as you like):

    expression = term , { "or" , term } ;
    term       = factor , { "and" , factor } ;
    factor     = "not" , factor | "(" , expression , ")" | existence | condition ;
    existence  = "exists" , ( key | "(" , key , ")" ) ;
    condition  = key , ( operator , value
                       | [ "not" ] , "in" , "(" , [ value , { "," , value } ] , ")"
                       | "contains" , string
                       | "is" , [ "not" ] , "null" ) ;
    operator   = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ;
    value      = string | number | "true" | "false" ;
    key        = name | '"' , { any character but '"' | '""' } , '"' ;
    string     = "'" , { any character but "'" | "''" } , "'" ;
    name       = ( letter | "_" ) , { letter | digit | "_" } , { "." , part } ;
    part       = ( letter | digit | "_" ) , { letter | digit | "_" } ;
    number     = [ "+" | "-" ] , ( "inf" | ( digits , [ "." , [ digits ] ] | "." , digits ) ,
                                           [ ( "e" | "E" ) , [ "+" | "-" ] , digits ] ) ;

A number without point, exponent and `inf` is an integer, any other is a float. Letters and digits of
names are those of Unicode; a dot is part of the key. The keywords are and, or, not, in, is, null, true,
false, exists and contains: a key that is a keyword, or is no name, stands in double quotes.

An expression has at most 2^20 characters, and parentheses and `not` nest at most 64 deep.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from iqdb_core.errors import InvalidFilterError
from iqdb_core.filters import (
    MAX_IN_VALUES,
    MAX_LEVELS,
    SYMBOLS,
    And,
    Combination,
    Comparison,
    Contains,
    Exists,
    Filter,
    FilterValue,
    Membership,
    Not,
    NullTest,
    Or,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_EXPRESSION_CHARACTERS = 1 << 20

KEYWORDS = frozenset({"and", "or", "not", "in", "is", "null", "true", "false", "exists", "contains"})

_NAME = r"[^\W\d]\w*(?:\.\w+)*"
_TOKENS = re.compile(
    rf"""
    (?P<name>{_NAME})
    | (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]) | [+-][iI][nN][fF](?!\w))
    | (?P<string>'(?:[^']|'')*'(?!'))
    | (?P<quoted>"(?:[^"]|"")*"(?!"))
    | (?P<symbol><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    """,
    re.VERBOSE,
)
_BARE_KEY = re.compile(_NAME)
_SPACE = re.compile(r"\s*")
_OPERATORS = {symbol: op for op, symbol in SYMBOLS.items()} | {"==": "eq", "<>": "ne"}


# --- Filter to text -----------------------------------------------------------------------------


def format_filter(condition: Filter) -> str:
    """Return an expression that parses to an equal filter."""
    match condition:
        case Comparison(key, op, value):
            return f"{_format_key(key)} {SYMBOLS[op]} {_format_value(value)}"
        case Membership(key, values, negated):
            listed = ", ".join(map(_format_value, values))
            return f"{_format_key(key)} {'not in' if negated else 'in'} ({listed})"
        case Contains(key, text):
            return f"{_format_key(key)} contains {_format_value(text)}"
        case NullTest(key, negated):
            return f"{_format_key(key)} is {'not null' if negated else 'null'}"
        case Exists(key):
            return f"exists({_format_key(key)})"
        case And(filters):
            # `and` binds more tightly than `or`, so only an `or` within needs parentheses.
            return " and ".join(_grouped(inner) if isinstance(inner, Or) else str(inner) for inner in filters)
        case Or(filters):
            return " or ".join(map(str, filters))
        case Not(inner):
            return f"not {_grouped(inner) if isinstance(inner, Combination) else inner}"
    raise AssertionError(condition)


def _grouped(condition: Filter) -> str:
    return f"({condition})"


def _format_key(key: str) -> str:
    if _BARE_KEY.fullmatch(key) and key.lower() not in KEYWORDS:
        return key
    return '"' + key.replace('"', '""') + '"'


def _format_value(value: FilterValue) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value).lower() if isinstance(value, bool) else repr(value)


# --- Text to filter -----------------------------------------------------------------------------


def parse_filter(expression: str) -> Filter:
    """Return the filter that an expression describes.

    Raises:
        InvalidFilterError: it is not an expression, or exceeds a limit.
    """
    if not isinstance(expression, str):
        raise InvalidFilterError(f"expected an expression, not {type(expression).__name__}")
    if len(expression) > MAX_EXPRESSION_CHARACTERS:
        reason = f"the expression has {len(expression)} characters, the limit is {MAX_EXPRESSION_CHARACTERS}"
        raise InvalidFilterError(reason)
    return _Parser(expression).parse()


class _Token(NamedTuple):
    """A token: its kind (a group of `_TOKENS`, "keyword" or "end"), its text and where it begins."""

    kind: str
    text: str
    start: int


class _Parser:
    """Recursive descent with one token of lookahead."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._end = 0
        self._depth = 0
        self._token = self._next()

    def parse(self) -> Filter:
        if self._token.kind == "end":
            raise self._fail("the expression is empty")
        result = self._disjunction()
        if self._token.kind != "end":
            raise self._expected('"and", "or" or the end')
        return result

    # --- Tokens

    def _next(self) -> _Token:
        text = self._expression
        space = _SPACE.match(text, self._end)
        start = space.end() if space else self._end
        if start == len(text):
            return _Token("end", "", start)
        found = _TOKENS.match(text, start)
        if found is None:
            raise self._fail_at_character(start)
        self._end = found.end()
        kind, token = str(found.lastgroup), found.group()
        if kind == "name" and token.lower() in KEYWORDS:
            kind, token = "keyword", token.lower()
        return _Token(kind, token, start)

    def _take(self) -> _Token:
        token = self._token
        self._token = self._next()
        return token

    def _accept(self, text: str) -> bool:
        if self._token.text == text and self._token.kind in {"keyword", "symbol"}:
            self._take()
            return True
        return False

    def _require(self, text: str) -> None:
        if not self._accept(text):
            raise self._expected(f'"{text}"')

    # --- Errors

    def _fail(self, reason: str, at: int | None = None) -> InvalidFilterError:
        column = (self._token.start if at is None else at) + 1
        return InvalidFilterError(reason, expression=self._expression, column=column)

    def _expected(self, what: str, hint: str = "") -> InvalidFilterError:
        token = self._token
        shown = token.text if len(token.text) <= 40 else token.text[:37] + "..."
        found = "the end" if token.kind == "end" else f"the {token.kind} {shown}"
        if token.kind in {"symbol", "keyword"}:
            found = f'"{shown}"'
        if token.kind == "quoted":
            found = shown
        return self._fail(f"expected {what}, found {found}" + (f" ({hint})" if hint else ""))

    def _fail_at_character(self, start: int) -> InvalidFilterError:
        character = self._expression[start]
        if character == "'":
            return self._fail("this string has no closing '", start)
        if character == '"':
            return self._fail('this key has no closing "', start)
        if character.isdecimal() or character in "+-.":
            return self._fail("this is not a number", start)
        return self._fail(f"unexpected character {character!r}", start)

    # --- Grammar

    def _disjunction(self) -> Filter:
        terms = [self._conjunction()]
        while self._accept("or"):
            terms.append(self._conjunction())
        return self._combined(Or, terms)

    def _conjunction(self) -> Filter:
        factors = [self._factor()]
        while self._accept("and"):
            factors.append(self._factor())
        return self._combined(And, factors)

    def _combined(self, kind: type[Combination], parts: list[Filter]) -> Filter:
        return parts[0] if len(parts) == 1 else self._checked(kind, tuple(parts))

    def _factor(self) -> Filter:
        start = self._token.start
        if self._accept("not"):
            self._enter(start)
            inner = self._factor()
            self._depth -= 1
            return self._checked(Not, inner)
        if self._accept("("):
            self._enter(start)
            inner = self._disjunction()
            self._require(")")
            self._depth -= 1
            return inner
        if self._accept("exists"):
            if self._accept("("):
                key = self._key()
                self._require(")")
            else:
                key = self._key()
            return self._checked(Exists, key)
        return self._condition()

    def _enter(self, start: int) -> None:
        self._depth += 1
        if self._depth > MAX_LEVELS:
            raise self._fail(f"more than {MAX_LEVELS} levels", start)

    def _condition(self) -> Filter:
        key = self._key()
        start = self._token.start
        op = _OPERATORS.get(self._token.text) if self._token.kind == "symbol" else None
        if op is not None:
            self._take()
            return self._checked(Comparison, key, op, self._value(), start=start)
        if self._accept("contains"):
            if self._token.kind != "string":
                raise self._expected("a string in single quotes")
            return self._checked(Contains, key, self._value())
        if self._accept("is"):
            negated = self._accept("not")
            self._require("null")
            return self._checked(NullTest, key, negated)
        negated = self._accept("not")
        if self._accept("in"):
            return self._checked(Membership, key, self._values(), negated, start=start)
        if negated:
            raise self._expected('"in"', f'"not {_format_key(key)} ..." negates any condition')
        raise self._expected("a comparison: = != < <= > >= in contains is")

    def _key(self) -> str:
        token = self._token
        if token.kind == "name":
            return self._take().text
        if token.kind == "quoted":
            return self._take().text[1:-1].replace('""', '"')
        if token.kind == "keyword":
            raise self._expected("a key", "a key with the name of a keyword stands in double quotes")
        if token.kind in {"string", "number"}:
            raise self._expected("a key", "a key that is no plain name stands in double quotes")
        raise self._expected("a key")

    def _values(self) -> tuple[FilterValue, ...]:
        self._require("(")
        values: list[FilterValue] = []
        if self._accept(")"):
            return ()
        while True:
            start = self._token.start
            values.append(self._value())
            if len(values) > MAX_IN_VALUES:
                raise self._fail(f"more than {MAX_IN_VALUES} values in one in", start)
            if self._accept(")"):
                return tuple(values)
            if not self._accept(","):
                raise self._expected('"," or ")"')

    def _value(self) -> FilterValue:
        kind, text, start = self._token
        if kind == "string":
            self._take()
            return text[1:-1].replace("''", "'")
        if kind == "number" or (kind == "name" and text.lower() == "inf"):
            self._take()
            return self._number(text, start)
        if kind == "keyword" and text in {"true", "false"}:
            self._take()
            return text == "true"
        if kind == "keyword" and text == "null":
            raise self._expected("a value", 'ask "is null" or "is not null"')
        if kind in {"name", "quoted"}:
            raise self._expected("a value", "a string stands in single quotes")
        raise self._expected("a value")

    def _number(self, text: str, start: int) -> int | float:
        if text.lstrip("+-").isdigit():
            # Any int64 has at most 19 digits; Python refuses to read thousands of them.
            digits = text.lstrip("+-").lstrip("0")
            value = int(text) if len(digits) <= 19 else None
            if value is None or not -(2**63) <= value < 2**63:
                raise self._fail("this integer is outside -2^63..2^63-1", start)
            return value
        number = float(text)
        if number in {float("inf"), float("-inf")} and not text.lower().endswith("inf"):
            raise self._fail("this number is too large for a float", start)
        return number

    def _checked(self, kind: Callable[..., Filter], *arguments: object, start: int | None = None) -> Filter:
        """Build a node, and let what it refuses be said with a column."""
        try:
            return kind(*arguments)
        except InvalidFilterError as error:
            raise self._fail(error.reason, start) from None
