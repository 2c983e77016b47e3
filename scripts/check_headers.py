#!/usr/bin/env python3
"""Checks that headers name what they use: each includes the header of every std:: name in it.

    scripts/check_headers.py [ROOT]

The precompiled header hides a missing include from the compiler, and so does LibTorch, which brings
half of the standard library along. Names that stand in PROVIDERS are checked in all headers under
ringlet/. Exits 1 with one line per offence. That headers compile without the precompiled header is
what scripts/tidy.sh --headers says.
"""
import pathlib
import re
import sys

PROVIDERS = {
    "<algorithm>": "all_of any_of none_of clamp copy count count_if fill find find_if for_each lower_bound max max_element"
                   " min min_element minmax_element nth_element partial_sort remove_if replace reverse sort stable_sort"
                   " transform unique upper_bound",
    "<array>": "array",
    "<atomic>": "atomic",
    "<chrono>": "chrono",
    "<complex>": "complex",
    "<cstdint>": "int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t",
    "<deque>": "deque",
    "<exception>": "exception exception_ptr current_exception",
    "<filesystem>": "filesystem",
    "<fstream>": "ifstream ofstream fstream",
    "<functional>": "function hash less greater",
    "<future>": "async future",
    "<initializer_list>": "initializer_list",
    "<limits>": "numeric_limits",
    "<map>": "map multimap",
    "<memory>": "unique_ptr shared_ptr weak_ptr make_unique make_shared",
    "<mutex>": "mutex lock_guard unique_lock once_flag call_once",
    "<numeric>": "accumulate iota inner_product",
    "<optional>": "optional nullopt",
    "<regex>": "regex",
    "<set>": "set multiset",
    "<span>": "span as_bytes",
    "<sstream>": "ostringstream istringstream stringstream",
    "<string>": "string to_string stoi stod getline",
    "<string_view>": "string_view",
    "<thread>": "thread jthread this_thread",
    "<tuple>": "tuple tie make_tuple",
    "<unordered_map>": "unordered_map",
    "<unordered_set>": "unordered_set",
    "<utility>": "pair move exchange swap forward make_pair",
    "<variant>": "variant visit holds_alternative monostate",
    "<vector>": "vector",
}
# Headers that promise the names of others.
ALSO = {"<algorithm>": {"<utility>"}, "<map>": {"<utility>"}, "<tuple>": {"<utility>"}, "<array>": {"<utility>"},
        "<unordered_map>": {"<utility>"},
        "<string>": {"<string_view>", "<initializer_list>"}, "<vector>": {"<initializer_list>"},
        "<variant>": {"<utility>"}, "<optional>": {"<utility>"}, "<set>": {"<utility>"}}
PROVIDER = {name: header for header, names in PROVIDERS.items() for name in names.split()}

NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
INCLUDE = re.compile(r'^\s*#\s*include\s+(<[^>]+>|"[^"]+")', re.M)
STANDARD = re.compile(r"\bstd::(\w+)")


def offences(root, path):
    text = (root / path).read_text()
    includes = INCLUDE.findall(text)
    given = set(includes).union(*(ALSO.get(name, set()) for name in includes))
    code = NOT_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    for name in sorted(set(STANDARD.findall(code))):
        header = PROVIDER.get(name)
        if header and header not in given:
            yield f"{path}: std::{name} without #include {header}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    headers = sorted(path.relative_to(root) for path in (root / "ringlet").rglob("*.h"))
    problems = [problem for path in headers for problem in offences(root, path)]
    print("\n".join(problems) if problems else f"headers: {len(headers)} name what they use")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
