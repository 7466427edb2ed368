"""Read what `nvdisasm -c -hex -g` prints: SASS instructions with their scheduling words and source lines.

    //## File "kernel.py", line 57
            /*0010*/        @!P0 BRA `(.L_x_1) ;        /* 0x0000002400ec8947 */
                                                        /* 0x000fea0003800000 */

The second word of an instruction schedules it (Volta and later): bits 41-44 are the cycles until the warp may issue
again, 46-48 and 49-51 the scoreboards it sets until its result is there and until its operands are read (7 is none),
52-57 the scoreboards it waits for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from attngen.errors import CompileError
from attngen.static.loops import Jump

NO_SCOREBOARD = 7

_SECTION = re.compile(r"\s*\.section\s+\.text\.([^,\s]+)")
_LABEL = re.compile(r"\s*(\.L_\w+):")
_SOURCE = re.compile(r'\s*//## File "([^"]*)", line (\d+)(?:.*inlined at "([^"]*)", line (\d+))?')
_CODE = re.compile(
    r"\s*/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?)\s*;\s*/\* 0x[0-9a-f]{16} \*/"
)
_WORD = re.compile(r"\s*/\* 0x([0-9a-f]{16}) \*/")
_TARGET = re.compile(r"`\((\.L_\w+)\)")
_JUMPS = frozenset({"BRA", "BRX", "JMP", "JMX", "EXIT", "RET"})


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a warp.

    opcode     with its modifiers, `HMMA.16816.F32.BF16`; `base` is the first part;
    stall      cycles until the same warp may issue again, at least 1;
    sets_done  the scoreboard held until the result is there, or 7;
    sets_read  the scoreboard held until the operands are read, or 7;
    waits      the scoreboards it waits for;
    source     file and line that the debug information names, where it does;
    target     the position that it jumps to, where the listing says.
    """

    opcode: str
    operands: str = ""
    predicate: str = ""
    stall: int = 1
    sets_done: int = NO_SCOREBOARD
    sets_read: int = NO_SCOREBOARD
    waits: tuple[int, ...] = ()
    source: tuple[str, int] | None = None
    target: int | None = None

    @property
    def base(self) -> str:
        """The opcode without modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def jump(self) -> Jump | None:
        """Where it may go, if not always to the next one. A call comes back: it is no jump."""
        if self.base not in _JUMPS:
            return None
        # a condition is a predicate, or an operand before the label: `BRA.U UP0, ...`
        conditional = bool(self.predicate) or (self.base == "BRA" and not self.operands.startswith("`"))
        return Jump(self.target if self.base == "BRA" else None, conditional)


def parse_sass(listing: str, entry: str) -> tuple[Instruction, ...]:
    """The instructions of the function `entry`. Raises CompileError where the listing has none."""
    code: list[Instruction] = []
    targets: list[str | None] = []
    labels: dict[str, int] = {}
    source: tuple[str, int] | None = None
    inside = fresh = False
    for line in listing.splitlines():
        if m := _SECTION.match(line):
            inside, source = m[1] == entry, None
        elif not inside:
            continue
        elif m := _CODE.match(line):
            target = _TARGET.search(m[3])
            code.append(Instruction(m[2], m[3], (m[1] or "").strip(), source=source))
            targets.append(target[1] if target else None)
            fresh = True
        elif m := _WORD.match(line):
            if fresh:
                code[-1] = _scheduled(code[-1], int(m[1], 16))
            fresh = False
        elif m := _LABEL.match(line):
            labels[m[1]] = len(code)
        elif m := _SOURCE.match(line):
            source = (m[3], int(m[4])) if m[3] else (m[1], int(m[2]))
    if not code:
        raise CompileError(f"nvdisasm lists no code of {entry}", log=listing)
    return tuple(
        x if t is None else replace(x, target=labels.get(t)) for x, t in zip(code, targets, strict=True)
    )


def _scheduled(instruction: Instruction, word: int) -> Instruction:
    return replace(
        instruction,
        stall=max(1, word >> 41 & 15),
        sets_done=word >> 46 & 7,
        sets_read=word >> 49 & 7,
        waits=tuple(b for b in range(6) if word >> (52 + b) & 1),
    )
