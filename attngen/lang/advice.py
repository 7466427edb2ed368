"""What to write instead: reads the user's statement around a symbol that Python asked for its value.

Python turns a symbol into a number or a truth value in many disguises (`if`, `and`, a chained comparison,
`max`, `math.exp`, a list index). The bytecode's position leads to the syntax node, and the node says which
disguise it was.
"""

from __future__ import annotations

import ast
import linecache

from attngen.lang.callsite import Span, span_at, user_frame

# math functions whose torch namesake has another name.
_MATH_TO_TORCH = {"fabs": "abs", "fmod": "fmod", "copysign": "copysign", "isclose": "isclose"}


def advise(asked_for: str) -> tuple[str, str]:
    """What was wrong and what to write, for the operation now running in the user's code.

    `asked_for` is the protocol Python used: a key of `_GENERAL`.
    """
    for node, child in _enclosing():
        found = _truth(node, child) if asked_for == "bool" else None
        found = found or _call(node, asked_for) or _subscript(node, asked_for) or _loop(node, child)
        if found is not None:
            return found
        if isinstance(node, ast.stmt):
            break
    return _GENERAL[asked_for]


_GENERAL = {
    "bool": (
        "a symbolic value has no truth value while the function is traced",
        "use & | ~ on conditions and torch.where(condition, a, b) to choose",
    ),
    "int": ("int() needs a number, but the value is symbolic", "write x.int() or x.to(torch.int32)"),
    "float": (
        "float() needs a number, but the value is symbolic",
        "write x.float(), or the torch function in place of the math one",
    ),
    "index": (
        "a symbolic value cannot be a Python index",
        "index a torch.Tensor instead: table = torch.tensor(values); table[q]",
    ),
    "iter": ("a symbolic value cannot be iterated over", "it stands for one number, not for a sequence"),
    "array": (
        "numpy cannot take a symbolic value",
        "use torch's functions, and torch.from_numpy(array) for a captured array",
    ),
    "len": ("a symbolic value has no length", "it stands for one number, not for a sequence"),
    "hash": (
        "a symbolic value cannot be a key of a dictionary or a set",
        "index a torch.Tensor instead: table = torch.tensor(values); table[h]",
    ),
}


def _enclosing() -> list[tuple[ast.AST, ast.AST | None]]:
    """Syntax nodes around the running operation, innermost first, each with its child on the path."""
    frame = user_frame()
    if frame is None:
        return []
    span = span_at(frame.f_code, frame.f_lasti, frame.f_lineno)
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    if span is None or not source:
        return []
    try:
        node: ast.AST | None = ast.parse(source)
    except SyntaxError:  # the file changed on disk since it was imported
        return []
    path: list[ast.AST] = []
    while node is not None:
        path.append(node)
        node = next((c for c in _descend(node) if _covers(c, span)), None)
    path.reverse()
    return [(node, path[i - 1] if i else None) for i, node in enumerate(path) if hasattr(node, "lineno")]


def _descend(node: ast.AST) -> list[ast.AST]:
    """Children that carry positions; helper nodes without any (`arguments`, `comprehension`) are opened."""
    out: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        out.extend([child] if hasattr(child, "lineno") else _descend(child))
    return out


def _covers(node: ast.AST, span: Span) -> bool:
    first, last, col, end_col = span
    start = (getattr(node, "lineno", 0), getattr(node, "col_offset", 0))
    end = (getattr(node, "end_lineno", 0), getattr(node, "end_col_offset", 0))
    return start <= (first, col) and (last, end_col) <= end


def _truth(node: ast.AST, child: ast.AST | None) -> tuple[str, str] | None:
    match node:
        case ast.BoolOp(op, values):
            word, sign = ("and", "&") if isinstance(op, ast.And) else ("or", "|")
            better = f" {sign} ".join(_operand(v) for v in values)
            return f"`{word}` asks for the truth of a symbolic value", f"write {better}"
        case ast.UnaryOp(ast.Not(), operand):
            return "`not` asks for the truth of a symbolic value", f"write ~{_operand(operand)}"
        case ast.Compare(left, ops, others) if len(ops) > 1:
            operands = [left, *others]
            links = [
                ast.unparse(ast.Compare(a, [op], [b]))
                for a, op, b in zip(operands, ops, operands[1:], strict=False)
            ]
            better = " & ".join(f"({link})" for link in links)
            return "a chained comparison hides an `and`", f"write {better}"
        case ast.Compare(left, [ast.In() | ast.NotIn() as op], [container]):
            equal = " | ".join(f"({ast.unparse(left)} == {x})" for x in _elements(container))
            better = equal if isinstance(op, ast.In) else f"~({equal})"
            return "`in` compares one by one and asks for the truth of each", f"write {better}"
        case ast.IfExp(test, body, other) if child is test:
            parts = ", ".join(ast.unparse(n) for n in (test, body, other))
            return "a conditional expression on a symbolic value", f"write torch.where({parts})"
        case ast.If(test) | ast.While(test) | ast.Assert(test) if child in (test, None):
            word = type(node).__name__.lower()
            return (
                f"`{word}` on a symbolic value: the function is traced once, for all pairs together",
                f"write torch.where({ast.unparse(test)}, a, b), or combine conditions with & | ~",
            )
        case _:
            return None


def _call(node: ast.AST, asked_for: str) -> tuple[str, str] | None:
    if not isinstance(node, ast.Call):
        return None
    args = ", ".join(ast.unparse(a) for a in node.args)
    match node.func:
        case ast.Name("max" | "min" as name):
            return f"Python's {name}() compares truth values", f"write torch.{name}imum({args})"
        case ast.Name("any" | "all" as name):
            sign = "|" if name == "any" else "&"
            return f"{name}() asks for truth values", f"join the conditions with {sign}"
        case ast.Name("bool"):
            return "bool() needs a number, but the value is symbolic", f"write ({args}) != 0"
        case ast.Name("range"):
            return "range() over a symbolic value", "loop over numbers known while tracing"
        case ast.Name("int" | "float" as name):
            return (
                f"{name}() needs a number, but the value is symbolic",
                f"write ({args}).{name}()" if node.args else _GENERAL[name][1],
            )
        case ast.Attribute(ast.Name("math"), name) if asked_for in ("float", "index"):
            better = _MATH_TO_TORCH.get(name, name)
            return f"math.{name}() needs a number, but the value is symbolic", f"write torch.{better}({args})"
        case ast.Attribute(ast.Name("np" | "numpy"), name):
            return f"numpy's {name}() cannot take a symbolic value", f"write torch.{name}({args})"
        case _:
            return None


def _subscript(node: ast.AST, asked_for: str) -> tuple[str, str] | None:
    if not isinstance(node, ast.Subscript) or asked_for not in ("index", "hash", "array"):
        return None
    name, index = ast.unparse(node.value), ast.unparse(node.slice)
    return (
        f"{name}[{index}]: only a torch.Tensor can be indexed by a symbolic value",
        f"make {name} a tensor before the function: {name} = torch.as_tensor({name})",
    )


def _loop(node: ast.AST, child: ast.AST | None) -> tuple[str, str] | None:
    if isinstance(node, ast.For) and child in (node.iter, None):
        return "a loop over a symbolic value", "loop over numbers known while tracing"
    return None


def _operand(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if isinstance(node, ast.Name | ast.Call | ast.Subscript | ast.Attribute) else f"({text})"


def _elements(container: ast.expr) -> list[str]:
    if isinstance(container, ast.Tuple | ast.List | ast.Set) and container.elts:
        return [ast.unparse(e) for e in container.elts]
    name = ast.unparse(container)
    return [f"{name}[0]", f"{name}[1]"]
