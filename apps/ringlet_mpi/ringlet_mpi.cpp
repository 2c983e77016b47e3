// libringlet_mpi.so: what ringlet takes from MPI (see ringlet/train/mpi_module.h).
#define OMPI_SKIP_MPICXX 1
#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include <mpi.h>

#include "ringlet/train/mpi_module.h"

namespace ringlet::mpi {
namespace {

constexpr int kTag = 77;  // of words

struct State {
  MPI_Comm sums = MPI_COMM_NULL, words = MPI_COMM_NULL;
  std::vector<MPI_Request> begun;
  std::string problem;
};

State& state() {
  static State one;
  return one;
}

/// Nothing for success.
const char* checked(int status) {
  if (status == MPI_SUCCESS) return nullptr;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(status, text.data(), &length);
  state().problem.assign(text.data(), static_cast<std::size_t>(length));
  return state().problem.c_str();
}

const char* start(int* rank, int* count) {
  int level = 0;
  if (const char* problem =
          checked(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level)))
    return problem;
  if (level < MPI_THREAD_SERIALIZED) return "this MPI is built without support for threads";
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, rank);
  MPI_Comm_size(MPI_COMM_WORLD, count);
  if (const char* problem = checked(MPI_Comm_dup(MPI_COMM_WORLD, &state().sums))) return problem;
  return checked(MPI_Comm_dup(MPI_COMM_WORLD, &state().words));
}

const char* begin_sum(void* numbers, std::size_t count, int wide) {
  MPI_Request& request = state().begun.emplace_back(MPI_REQUEST_NULL);
  return checked(MPI_Iallreduce(MPI_IN_PLACE, numbers, static_cast<int>(count),
                                wide != 0 ? MPI_DOUBLE : MPI_FLOAT, MPI_SUM, state().sums,
                                &request));
}

const char* begin_gather(const void* own, void* all, std::size_t bytes) {
  MPI_Request& request = state().begun.emplace_back(MPI_REQUEST_NULL);
  const int count = static_cast<int>(bytes);
  return checked(
      MPI_Iallgather(own, count, MPI_BYTE, all, count, MPI_BYTE, state().sums, &request));
}

int done() {
  std::vector<MPI_Request>& begun = state().begun;
  int all = 0;
  if (checked(MPI_Testall(static_cast<int>(begun.size()), begun.data(), &all,
                          MPI_STATUSES_IGNORE)) != nullptr)
    return -1;
  if (all != 0) begun.clear();
  return all != 0 ? 1 : 0;
}

const char* problem() { return state().problem.c_str(); }

/// The words that are sent stay in their place: a message may be under way for long.
void say(int rank, char word) {
  static std::array<char, 256> words{};
  char& place = words[static_cast<unsigned char>(word)];
  place = word;
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Isend(&place, 1, MPI_CHAR, rank, kTag, state().words, &request) == MPI_SUCCESS &&
      request != MPI_REQUEST_NULL)
    MPI_Request_free(&request);
}

int hear(int* rank, char* word) {
  int found = 0;
  MPI_Status status{};
  if (MPI_Iprobe(MPI_ANY_SOURCE, kTag, state().words, &found, &status) != MPI_SUCCESS || found == 0)
    return 0;
  *rank = status.MPI_SOURCE;
  return MPI_Recv(word, 1, MPI_CHAR, *rank, kTag, state().words, MPI_STATUS_IGNORE) == MPI_SUCCESS
             ? 1
             : 0;
}

void end() { MPI_Finalize(); }

void end_all(int status) { MPI_Abort(MPI_COMM_WORLD, status); }

constexpr train::MpiModule kModule = {train::kMpiModuleVersion,
                                      start,
                                      begin_sum,
                                      begin_gather,
                                      done,
                                      problem,
                                      say,
                                      hear,
                                      end,
                                      end_all};

}  // namespace
}  // namespace ringlet::mpi

extern "C" [[gnu::visibility("default")]] const ringlet::train::MpiModule* ringlet_mpi_module() {
  return &ringlet::mpi::kModule;
}
