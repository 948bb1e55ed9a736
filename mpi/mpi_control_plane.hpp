#pragma once

#include "comm/control_plane.hpp"
#include "mpi/mpi_calls.hpp"

namespace llama3d {

/// All ranks of MPI_COMM_WORLD, in a message space of its own. A lost rank is a RankLostError.
class MpiControlPlane final : public ControlPlane {
 public:
  /// Collective over MPI_COMM_WORLD.
  MpiControlPlane();

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int node_rank() const override { return node_rank_; }
  int node_size() const override { return node_size_; }
  std::string host() const override { return host_; }
  std::string broadcast(const std::string& text, int root) override;
  std::vector<std::string> all_gather(const std::string& text) override;
  std::int64_t all_max(std::int64_t value) override;
  void barrier() override;
  [[noreturn]] void abort(int status) override;

 private:
  CommHandle comm_;
  int rank_ = 0, size_ = 1, node_rank_ = 0, node_size_ = 1;
  std::string host_;
};

}  // namespace llama3d
