import pytest

from data_pipelines.sources.code_language import LANGUAGES, find_language, may_be_language, name_language


@pytest.mark.parametrize(
    ("path", "content", "language"),
    [
        ("a/b.py", b"", "python"),
        ("A.PY", b"", "python"),
        ("main.go", b"", "go"),
        ("lib.rs", b"", "rust"),
        ("a/Makefile", b"", "makefile"),
        ("CMakeLists.txt", b"", "cmake"),
        ("Dockerfile", b"", "dockerfile"),
        ("Dockerfile.prod", b"", "dockerfile"),
        ("notes.txt", b"", "text"),
        ("run", b"#!/usr/bin/env python3.11\nimport os\n", "python"),
        ("run", b"#! /usr/bin/env -S node --trace\n", "javascript"),
        ("run", b"#!/usr/bin/env LANG=C bash\n", "bash"),
        ("run", b"#!/bin/sh -e\n", "bash"),
        ("run", b"#!/usr/bin/perl -w\n", "perl"),
        ("run", b"#!/opt/strange\n", ""),
        ("run", b"#!\n", ""),
        ("LICENSE", b"Apache License", ""),
        ("a.unknown", b"#!/bin/sh\n", ""),
        ("a.h", b"int f(int x);\n", "c"),
        ("a.h", b"#pragma once\nnamespace a {\nclass B {\npublic:\n};\n}\n", "cpp"),
        ("a.h", b"#import <Foundation/Foundation.h>\n@interface A\n", "objectivec"),
        ("a.m", b"function y = f(x)\n", "matlab"),
        ("a.m", b"#import \"a.h\"\n@implementation A\n", "objectivec"),
        ("a.ts", b"export const a = 1;\n", "typescript"),
        ("a.ts", b"<?xml version=\"1.0\"?>\n<!DOCTYPE TS>\n", "xml"),
        ("a.v", b"module top (input a);\nendmodule\n", "verilog"),
        ("a.v", b"Theorem t : True.\nProof. exact I. Qed.\n", "coq"),
        ("a.pl", b"use strict;\nmy $x = 1;\n", "perl"),
        ("a.pl", b"parent(tom, bob).\nold(X) :- parent(X, _).\n", "prolog"),
    ],
)  # fmt: skip
def test_name_ending_shebang_and_content_tell_the_language(path: str, content: bytes, language: str) -> None:
    assert find_language(path, content) == language


def test_a_file_is_read_when_its_name_leaves_a_wanted_language_open() -> None:
    assert may_be_language("a.h", frozenset({"cpp"}))
    assert may_be_language("run", frozenset({"python"}))
    assert not may_be_language("a.go", frozenset({"python"}))
    assert not may_be_language("Makefile", frozenset({"python"}))


@pytest.mark.parametrize(
    ("told", "language"),
    [("C++", "cpp"), ("C#", "csharp"), ("Python", "python"), ("Emacs Lisp", "emacslisp"), ("Klingon", "")],
)
def test_names_of_data_sets_are_known(told: str, language: str) -> None:
    assert name_language(told) == language


def test_some_sixty_languages_and_more_are_told() -> None:
    assert len(LANGUAGES) > 60
    assert all(name_language(language) == language for language in LANGUAGES)
