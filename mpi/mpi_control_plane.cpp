#include "mpi/mpi_control_plane.hpp"

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "base/error.hpp"
#include "comm/labels.hpp"

namespace llama3d {
namespace {

int checked_length(std::size_t bytes) {
  LLAMA3D_EXPECT(bytes <= INT_MAX, "a text of {} bytes", bytes);
  return static_cast<int>(bytes);
}

}  // namespace

MpiControlPlane::MpiControlPlane() : comm_(duplicate_comm(MPI_COMM_WORLD)) {
  check_mpi(MPI_Comm_rank(comm_.get(), &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_.get(), &size_), "MPI_Comm_size");
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(comm_.get(), MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  const CommHandle node_owner(node);
  check_mpi(MPI_Comm_rank(node, &node_rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(node, &node_size_), "MPI_Comm_size");
  host_.resize(MPI_MAX_PROCESSOR_NAME);
  int length = 0;
  check_mpi(MPI_Get_processor_name(host_.data(), &length), "MPI_Get_processor_name");
  host_.resize(static_cast<std::size_t>(length));
}

std::string MpiControlPlane::broadcast(const std::string& text, int root) {
  LLAMA3D_EXPECT(0 <= root && root < size_, "root {} of {} ranks", root, size_);
  std::int64_t length = checked_length(text.size());
  std::string result = text;
  activity().during(labels::control_broadcast, [&] {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(&length, 1, MPI_INT64_T, root, comm_.get(), &request), "MPI_Ibcast");
    wait_all({&request, 1}, "MPI_Ibcast");
    result.resize(static_cast<std::size_t>(length));
    check_mpi(MPI_Ibcast(result.data(), static_cast<int>(length), MPI_CHAR, root, comm_.get(), &request),
              "MPI_Ibcast");
    wait_all({&request, 1}, "MPI_Ibcast");
  });
  return result;
}

std::vector<std::string> MpiControlPlane::all_gather(const std::string& text) {
  const auto ranks = static_cast<std::size_t>(size_);
  const int length = checked_length(text.size());
  std::vector<int> lengths(ranks), offsets(ranks);
  std::string all;
  activity().during(labels::control_gather, [&] {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, comm_.get(), &request),
              "MPI_Iallgather");
    wait_all({&request, 1}, "MPI_Iallgather");
    const auto total = std::accumulate(lengths.begin(), lengths.end(), std::size_t{0});
    checked_length(total);
    std::exclusive_scan(lengths.begin(), lengths.end(), offsets.begin(), 0);
    all.resize(total);
    check_mpi(MPI_Iallgatherv(text.data(), length, MPI_CHAR, all.data(), lengths.data(), offsets.data(),
                              MPI_CHAR, comm_.get(), &request),
              "MPI_Iallgatherv");
    wait_all({&request, 1}, "MPI_Iallgatherv");
  });
  std::vector<std::string> texts(ranks);
  for (std::size_t r = 0; r < ranks; ++r)
    texts[r] = all.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(lengths[r]));
  return texts;
}

std::int64_t MpiControlPlane::all_max(std::int64_t value) {
  activity().during(labels::control_max, [&] {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MAX, comm_.get(), &request),
              "MPI_Iallreduce");
    wait_all({&request, 1}, "MPI_Iallreduce");
  });
  return value;
}

void MpiControlPlane::barrier() {
  activity().during(labels::control_barrier, [&] {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibarrier(comm_.get(), &request), "MPI_Ibarrier");
    wait_all({&request, 1}, "MPI_Ibarrier");
  });
}

void MpiControlPlane::abort(int status) {
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, status);
  std::_Exit(status);
}

}  // namespace llama3d
