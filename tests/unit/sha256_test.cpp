#include "ringlet/core/sha256.h"

#include <gtest/gtest.h>

#include "ringlet/core/atomic_file.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

std::string hash(std::string_view text) {
  return Sha256().update(std::as_bytes(std::span(text))).hex();
}

// FIPS 180-4 examples and NIST's long message.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesGiveTheSameHash) {
  const std::string text(1000, 'x');
  Sha256 pieces;
  for (std::size_t at = 0; at < text.size(); at += 37)
    pieces.update(std::as_bytes(std::span(text)).subspan(at, std::min<std::size_t>(37, 1000 - at)));
  EXPECT_EQ(pieces.hex(), hash(text));
}

TEST(Sha256, FilesOfEverySizeAroundTheBuffer) {
  const TemporaryFolder folder;
  for (const std::size_t size : {0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1}) {
    const std::string text(size, 'z');
    write_file_atomically(folder / "file", text);
    EXPECT_EQ(sha256_file(folder / "file"), hash(text)) << size;
  }
}

// The hash of nothing in place of an error would be taken for the file's.
TEST(Sha256, WhatCannotBeReadIsAnError) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::not_found, "none", [&] { sha256_file(folder / "none"); });
  expect_error(ErrorCode::io, "cannot be read", [&] { sha256_file(folder.path()); });
}

}  // namespace
}  // namespace ringlet
