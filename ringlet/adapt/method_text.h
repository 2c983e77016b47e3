// Methods as text: "trm(rank=2)+tr(rank=6)", "lora(rank=4,alpha=4)", "tlora".
//
// For the edge alone: command lines, metadata of files, settings of checkpoints, records and
// messages. Everything between them passes a Method; scripts/check_includes.py has the list of
// files that may include this one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ringlet/adapt/method.h"

namespace ringlet::adapt {

/// Names that stand for others: dora(rank=8) is magnitude+lora(rank=8).
std::vector<std::string> method_aliases();

/// Reads a method text or an alias. Every finite number that exact_number writes is read as the
/// same number again. Throws Error(invalid_argument) with the nearest name.
Method parse_method(std::string_view text);

/// Canonical: parse_method(method_text(m)) == m.
std::string method_text(const Method& method);

}  // namespace ringlet::adapt
