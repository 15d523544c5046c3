#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// What kind of thing a token is, for statistics by class. Each function has its labels beside it; the numbers that it gives are places in them.
namespace seqboat::data {

/// special (<s> <pad> </s> <unk> <CLS>), min, max, med, sm, digit, close (the bracket). A token that is not of the language is special.
const std::vector<std::string>& listops_class_labels();
uint8_t listops_class(int64_t token);

/// Depth in the tree: "0" outside of it (<CLS>), the root operator and its bracket 1, its arguments 2, ... and the last label, "20+", for all from 20
/// on. The expression need not be well-formed.
const std::vector<std::string>& listops_depth_labels();
void listops_depths(std::span<const int64_t> tokens, uint8_t* depths);

/// Of a byte as a token (data/bytes.h), by itself: letter, digit, space (blank and tab), newline (LF and CR), punctuation, control (of ASCII),
/// utf8-lead (0xC2 .. 0xF4, which begin a character of several bytes), utf8-continuation (0x80 .. 0xBF, which go on with it), other (bytes that no
/// UTF-8 has, and tokens that are no byte).
const std::vector<std::string>& byte_class_labels();
uint8_t byte_class(int64_t token);

}  // namespace seqboat::data
