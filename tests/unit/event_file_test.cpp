#include "ringlet/train/event_file.h"

#include <bit>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "ringlet/core/failpoint.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

/// CRC-32C bit by bit.
std::uint32_t slow_crc32c(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1u)));
  }
  return ~crc;
}

std::uint32_t slow_masked(std::string_view bytes) {
  const std::uint32_t crc = slow_crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

/// One field of a message; integers and floats as their bits.
struct Field {
  std::uint64_t number = 0;
  std::uint64_t bits = 0;
  std::string bytes;
};

/// A reader of its own: takes a file or message from front to back.
class Reader {
 public:
  explicit Reader(std::string bytes) : bytes_(std::move(bytes)) {}

  bool done() const { return at_ == bytes_.size(); }

  std::string take(std::size_t count) {
    if (count > bytes_.size() - at_) throw std::runtime_error("cut off");
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }
  std::uint64_t fixed(std::size_t count) {
    std::uint64_t value = 0;
    const std::string bytes = take(count);
    for (std::size_t i = count; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const std::uint64_t byte = fixed(1);
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  }
  Field field() {
    const std::uint64_t key = varint();
    Field out{key >> 3, 0, ""};
    if ((key & 7) == 0) out.bits = varint();
    if ((key & 7) == 1) out.bits = fixed(8);
    if ((key & 7) == 2) out.bytes = take(varint());
    if ((key & 7) == 5) out.bits = fixed(4);
    return out;
  }
  std::string record() {
    const std::string length = take(8);
    EXPECT_EQ(fixed(4), slow_masked(length));
    const std::string data = take(Reader(length).fixed(8));
    EXPECT_EQ(fixed(4), slow_masked(data));
    return data;
  }

 private:
  std::string bytes_;
  std::size_t at_ = 0;
};

std::vector<Field> fields(const std::string& message) {
  std::vector<Field> out;
  for (Reader reader(message); !reader.done();) out.push_back(reader.field());
  return out;
}

/// The field with this number, which must be there once.
Field only(const std::string& message, std::uint64_t number) {
  std::vector<Field> found;
  for (const Field& field : fields(message))
    if (field.number == number) found.push_back(field);
  EXPECT_EQ(found.size(), 1u) << "field " << number;
  return found.empty() ? Field{} : found.front();
}

std::vector<std::string> events(const fs::path& path) {
  std::vector<std::string> out;
  for (Reader reader(file_content(path)); !reader.done();) out.push_back(reader.record());
  return out;
}

/// The one value of an event's summary.
std::string value_of(const std::string& event) { return only(only(event, 5).bytes, 1).bytes; }

/// Starts at 1700000000.5 and goes on by a second with every look at it.
WallClock test_clock() {
  return [now = 1700000000.5 - 1.0]() mutable { return now += 1.0; };
}

TEST(EventFile, ChecksumsEqualThePublishedOnes) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  // RFC 3720, appendix B.4.
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
}

TEST(EventFile, AFileStartsWithItsVersionAndIsNamedAfterItsTime) {
  const TemporaryFolder folder;
  const EventFile file(folder.path(), [] { return 1700000000.5; });
  EXPECT_EQ(file.path(), folder / "events.out.tfevents.1700000000.ringlet");
  const auto all = events(file.path());
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(only(all[0], 3).bytes, "brain.Event:2");
  EXPECT_EQ(std::bit_cast<double>(only(all[0], 1).bits), 1700000000.5);
}

TEST(EventFile, ScalarsReadBack) {
  const TemporaryFolder folder;
  EventFile file(folder.path(), test_clock());
  const std::vector<std::int64_t> steps{0, 1, 127, 128, 300, std::int64_t{1} << 40, -1};
  for (const std::int64_t step : steps) file.add_scalar("loss/mean", step, 0.1);
  const auto all = events(file.path());
  ASSERT_EQ(all.size(), steps.size() + 1);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const std::string& event = all[i + 1];
    EXPECT_EQ(static_cast<std::int64_t>(only(event, 2).bits), steps[i]);
    const double time = std::bit_cast<double>(only(event, 1).bits);
    EXPECT_EQ(time, 1700000000.5 + 2.0 + static_cast<double>(i));
    EXPECT_EQ(only(value_of(event), 1).bytes, "loss/mean");
    const auto bits = static_cast<std::uint32_t>(only(value_of(event), 2).bits);
    EXPECT_EQ(std::bit_cast<float>(bits), 0.1f);
  }
}

TEST(EventFile, ANumberThatIsNotFiniteIsKept) {
  const TemporaryFolder folder;
  EventFile file(folder.path());
  file.add_scalar("loss", 1, std::nan(""));
  file.add_scalar("loss", 2, -std::numeric_limits<double>::infinity());
  const auto all = events(file.path());
  ASSERT_EQ(all.size(), 3u);
  const auto number = [&](std::size_t i) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(only(value_of(all[i]), 2).bits));
  };
  EXPECT_TRUE(std::isnan(number(1)));
  EXPECT_EQ(number(2), -std::numeric_limits<float>::infinity());
}

TEST(EventFile, PicturesReadBack) {
  const TemporaryFolder folder;
  EventFile file(folder.path());
  std::string png(100000, '\0');
  for (std::size_t i = 0; i < png.size(); ++i) png[i] = static_cast<char>(i * 7 >> 2);
  file.add_image("samples", 20, png, 640, 480);
  const auto all = events(file.path());
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(only(value_of(all[1]), 1).bytes, "samples");
  const std::string image = only(value_of(all[1]), 4).bytes;
  EXPECT_EQ(only(image, 1).bits, 480u);
  EXPECT_EQ(only(image, 2).bits, 640u);
  EXPECT_EQ(only(image, 3).bits, 3u);
  EXPECT_EQ(only(image, 4).bytes, png);
}

// The record that tensorboard 2.21.0 writes (summary.writer.record_writer.RecordWriter).
TEST(EventFile, ARecordEqualsTensorBoards) {
  const TemporaryFolder folder;
  EventFile file(folder.path(), [] { return 1700000000.5; });
  const std::size_t before = file_content(file.path()).size();
  file.add_scalar("loss", 7, 0.25);
  std::string hex;
  for (const char byte : file_content(file.path()).substr(before)) {
    hex += "0123456789abcdef"[static_cast<unsigned char>(byte) >> 4];
    hex += "0123456789abcdef"[static_cast<unsigned char>(byte) & 15];
  }
  EXPECT_EQ(hex,
            "1a00000000000000129bd82d0900002040fc54d94110072a0d0a0b0a046c6f7373150000803ec576518e");
}

TEST(EventFile, ARestartIsMarked) {
  const TemporaryFolder folder;
  EventFile file(folder.path());
  file.restart_at(201);
  const auto all = events(file.path());
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(only(all[1], 2).bits, 201u);
  EXPECT_EQ(only(only(all[1], 7).bytes, 1).bits, 1u);  // SessionLog.START
}

// Readers go through the files of a folder in the order of their names.
TEST(EventFile, TwoFilesOfOneSecondGetTwoNamesInTheirOrder) {
  const TemporaryFolder folder;
  const auto clock = [] { return 1700000000.5; };
  EventFile first(folder.path(), clock);
  EventFile second(folder.path(), clock);
  first.add_scalar("a", 1, 1.0);
  second.add_scalar("a", 2, 2.0);
  EXPECT_LT(first.path(), second.path());
  EXPECT_EQ(events(first.path()).size(), 2u);
  EXPECT_EQ(events(second.path()).size(), 2u);
}

TEST(EventFile, ATagMustBeUtf8) {
  const TemporaryFolder folder;
  EventFile file(folder.path());
  file.add_scalar("Verlust/\xC3\xA4", 1, 1.0);
  expect_error(ErrorCode::invalid_argument, "UTF-8", [&] { file.add_scalar("\xC3", 1, 1.0); });
  EXPECT_EQ(events(file.path()).size(), 2u);
}

TEST(EventFile, AFolderThatDoesNotExistIsNamed) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::not_found, "absent", [&] { EventFile(folder / "absent"); });
}

TEST(EventFile, FailingCallsAreErrorsAndTheFileGoesOn) {
  const TemporaryFolder folder;
  arm_failpoint("append_file.open", EACCES);
  expect_error(ErrorCode::io, "cannot create", [&] { EventFile(folder.path()); });
  EventFile file(folder.path());
  arm_failpoint("append_file.write", ENOSPC);
  expect_error(ErrorCode::no_space, "cannot write", [&] { file.add_scalar("a", 1, 1.0); });
  arm_failpoint("append_file.write", EIO);
  expect_error(ErrorCode::io, "cannot write", [&] { file.add_scalar("a", 1, 1.0); });
  arm_failpoint("append_file.fsync", EIO);
  expect_error(ErrorCode::io, "cannot flush", [&] { file.flush(); });
  arm_failpoint("append_file.write", EINTR);
  file.add_scalar("a", 1, 1.0);
  arm_failpoint("", 0);
  file.flush();
  EXPECT_EQ(events(file.path()).size(), 2u);
}

/// No file of this process grows beyond this size while it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*handler_)(int);
  rlimit before_{};
};

// The kernel takes a part of a record, then no more.
TEST(EventFile, ARecordThatDoesNotFitIsTakenBack) {
  const TemporaryFolder folder;
  EventFile file(folder.path());
  file.add_scalar("a", 1, 1.0);
  const std::string before = file_content(file.path());
  {
    const FileSizeLimit limit(before.size() + 50);
    expect_error(ErrorCode::no_space, "cannot write",
                 [&] { file.add_image("b", 1, std::string(100, 'x'), 8, 8); });
    EXPECT_EQ(file_content(file.path()), before);
  }
  file.add_scalar("a", 2, 1.0);
  EXPECT_EQ(events(file.path()).size(), 3u);
}

}  // namespace
}  // namespace ringlet::train
