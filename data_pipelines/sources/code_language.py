"""The programming language of a file: by its name, ending or `#!` line, and by content where languages share an ending.

Names are those of Linguist in lower case and without signs: `cpp` for C++, `csharp` for C#, `objectivec`.
"""

import re
from pathlib import PurePosixPath

_ENDINGS = {
    "ada": ".adb .ads",
    "agda": ".agda",
    "assembly": ".asm .s .nasm",
    "awk": ".awk",
    "bash": ".sh .bash .zsh .ksh .bats",
    "c": ".c .h",
    "clojure": ".clj .cljs .cljc",
    "cmake": ".cmake",
    "cobol": ".cob .cbl .cpy",
    "coffeescript": ".coffee",
    "commonlisp": ".lisp .lsp .asd",
    "coq": ".v",
    "cpp": ".cpp .cc .cxx .c++ .hpp .hh .hxx .h++ .ipp .inl .tpp",
    "crystal": ".cr",
    "csharp": ".cs .csx",
    "css": ".css .scss .sass .less",
    "cuda": ".cu .cuh",
    "cython": ".pyx .pxd .pxi",
    "d": ".d .di",
    "dart": ".dart",
    "dockerfile": ".dockerfile",
    "elixir": ".ex .exs",
    "elm": ".elm",
    "emacslisp": ".el",
    "erlang": ".erl .hrl",
    "fortran": ".f .f77 .f90 .f95 .f03 .f08 .for",
    "fsharp": ".fs .fsi .fsx",
    "gdscript": ".gd",
    "glsl": ".glsl .vert .frag .comp .geom",
    "go": ".go",
    "graphql": ".graphql .gql",
    "groovy": ".groovy .gradle",
    "haskell": ".hs .lhs",
    "haxe": ".hx",
    "hcl": ".tf .hcl",
    "html": ".html .htm .xhtml",
    "idris": ".idr",
    "java": ".java",
    "javascript": ".js .mjs .cjs .jsx",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lean": ".lean",
    "lua": ".lua",
    "makefile": ".mk .mak",
    "markdown": ".md .markdown",
    "matlab": ".m",
    "nim": ".nim .nims",
    "nix": ".nix",
    "objectivec": ".mm",
    "ocaml": ".ml .mli",
    "pascal": ".pas .pp .dpr .lpr",
    "perl": ".pl .pm .t",
    "php": ".php .phtml .php5",
    "powershell": ".ps1 .psm1 .psd1",
    "prolog": ".pro .prolog",
    "protobuf": ".proto",
    "python": ".py .pyi .pyw",
    "r": ".r",
    "racket": ".rkt",
    "restructuredtext": ".rst",
    "ruby": ".rb .rake .gemspec",
    "rust": ".rs",
    "scala": ".scala .sc .sbt",
    "scheme": ".scm .ss .sld",
    "smalltalk": ".st",
    "solidity": ".sol",
    "sql": ".sql .ddl",
    "standardml": ".sml .sig .fun",
    "starlark": ".bzl .star",
    "swift": ".swift",
    "systemverilog": ".sv .svh",
    "tcl": ".tcl .tk",
    "tex": ".tex .sty .cls",
    "thrift": ".thrift",
    "typescript": ".ts .tsx .mts .cts",
    "verilog": ".vh",
    "vhdl": ".vhd .vhdl",
    "vimscript": ".vim",
    "visualbasic": ".vb .bas .vbs",
    "vue": ".vue",
    "webassembly": ".wat .wast",
    "zig": ".zig .zon",
}
_DATA_ENDINGS = {
    "csv": ".csv .tsv",
    "json": ".json .jsonl .geojson .ipynb .map",
    "svg": ".svg",
    "text": ".txt",
    "toml": ".toml",
    "xml": ".xml .xsd .xsl .xslt .plist",
    "yaml": ".yaml .yml",
}
_NAMES = {
    "bash": "bashrc zshrc profile",
    "cmake": "cmakelists.txt",
    "dockerfile": "dockerfile containerfile",
    "makefile": "makefile gnumakefile",
    "python": "sconstruct sconscript wscript",
    "ruby": "rakefile gemfile vagrantfile podfile",
    "groovy": "jenkinsfile",
    "starlark": "build.bazel workspace.bazel",
}
_INTERPRETERS = {
    "bash": "sh bash zsh ksh dash ash bats",
    "awk": "awk gawk mawk",
    "elixir": "elixir",
    "erlang": "escript",
    "groovy": "groovy",
    "haskell": "runghc runhaskell stack",
    "javascript": "node nodejs bun",
    "julia": "julia",
    "lua": "lua luajit texlua",
    "makefile": "make",
    "ocaml": "ocaml",
    "perl": "perl",
    "php": "php",
    "powershell": "pwsh",
    "python": "python pypy",
    "r": "rscript",
    "racket": "racket",
    "ruby": "ruby jruby",
    "scheme": "guile",
    "tcl": "tclsh wish expect",
    "typescript": "deno ts-node tsx",
}
# Names that data sets use, beside our own.
_ALIASES = {
    "c++": "cpp",
    "c#": "csharp",
    "f#": "fsharp",
    "objective-c": "objectivec",
    "objective-c++": "objectivec",
    "shell": "bash",
    "common-lisp": "commonlisp",
    "emacs-lisp": "emacslisp",
    "standard-ml": "standardml",
    "visual-basic": "visualbasic",
    "vim-script": "vimscript",
    "viml": "vimscript",
    "scss": "css",
    "less": "css",
    "tsx": "typescript",
    "jsx": "javascript",
    "protocol-buffer": "protobuf",
}


def _invert(table: dict[str, str]) -> dict[str, str]:
    return {key: language for language, keys in table.items() for key in keys.split()}


_BY_ENDING = _invert(_ENDINGS) | _invert(_DATA_ENDINGS)
_BY_NAME, _BY_INTERPRETER = _invert(_NAMES), _invert(_INTERPRETERS)
LANGUAGES = frozenset(_ENDINGS) | frozenset(_DATA_ENDINGS)
"""All names that `find_language` gives."""
DATA_LANGUAGES = frozenset(_DATA_ENDINGS)
"""Those of data and plain text, which trees of code hold beside code."""
_ENVIRONMENT = re.compile(rb"#!\s*(?:\S*/)?env\s+(?:-\S+\s+|\w+=\S*\s+)*(\S+)")
_DIRECT = re.compile(rb"#!\s*(?:\S*/)?([^\s/]+)")
# Endings that several languages share: the first of them whose pattern is found; else the one of the table.
_SHARED = {
    ".h": (
        ("objectivec", re.compile(rb"(?m)^\s*(?:@interface|@protocol|@property|@class|#import)\b")),
        (
            "cpp",
            re.compile(rb"(?m)^\s*(?:template\s*<|namespace\b|class\s+\w+|(?:public|private|protected)\s*:|using )"),
        ),
    ),
    ".m": (("objectivec", re.compile(rb"(?m)^\s*(?:@interface|@implementation|@import|#import|#include)\b")),),
    ".pl": (("prolog", re.compile(rb"(?m)^\s*:-|^[a-z]\w*\([^()\n]*\)\s*(?::-|\.\s*$)")),),
    ".pro": (("text", re.compile(rb"(?m)^(?:TEMPLATE|QT|SOURCES|TARGET)\s*\+?=")),),
    ".ts": (("xml", re.compile(rb"^\s*(?:<\?xml|<!DOCTYPE TS)")),),
    ".v": (("verilog", re.compile(rb"(?m)^\s*(?:module\s+\w+\s*[#(;]|`(?:include|define|timescale)|endmodule\b)")),),
    ".fs": (("glsl", re.compile(rb"(?m)^\s*(?:#version\s|precision \w+ float|void main\s*\()")),),
}
_HEAD_BYTES = 10_000


def find_language(path: str, content: bytes = b"") -> str:
    """The language of a file, empty when it is not known.

    Args:
        path: its name, with folders before it or not.
        content: what it holds, or the beginning of that.
    """
    name = PurePosixPath(path).name.lower()
    if found := _BY_NAME.get(name) or _BY_NAME.get(name.partition(".")[0] if name.startswith("dockerfile.") else ""):
        return found
    ending = PurePosixPath(name).suffix
    if ending in _BY_ENDING:
        head = content[:_HEAD_BYTES]
        return next((language for language, sign in _SHARED.get(ending, ()) if sign.search(head)), _BY_ENDING[ending])
    return "" if ending else _read_interpreter(content)


def may_be_language(path: str, languages: frozenset[str]) -> bool:
    """Whether a file may turn out to be of one of the languages, by its name alone."""
    ending = PurePosixPath(path).suffix.lower()
    shared = {language for language, _ in _SHARED.get(ending, ())}
    return bool(languages & (shared | {find_language(path)})) or (not ending and not find_language(path))


def name_language(told: str) -> str:
    """Our name of a language that a data set names: `C++` is `cpp`; empty when it is none of ours."""
    name = told.strip().lower().replace(" ", "-").replace("_", "-")
    name = _ALIASES.get(name, name)
    return name if name in LANGUAGES else ""


def _read_interpreter(content: bytes) -> str:
    line = content[:200].partition(b"\n")[0]
    match = _ENVIRONMENT.match(line) or _DIRECT.match(line)
    if match is None:
        return ""
    program = match[1].decode("ascii", "replace").rpartition("/")[2].lower()
    return _BY_INTERPRETER.get(program) or _BY_INTERPRETER.get(program.rstrip("0123456789.-"), "")
