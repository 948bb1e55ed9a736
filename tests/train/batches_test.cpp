// Which samples the ranks of a grid take.
#include "train/batches.hpp"

#include <boost/test/unit_test.hpp>
#include <numeric>

#include "compute/host/host_device.hpp"
#include "compute/kernels.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;

namespace {

constexpr std::int64_t sequence = 8, samples = 64, micro_batch = 2, micro_batches = 3;

/// Token i of the file is i, and sample i of the list begins with token i * sequence.
struct CountingTokens {
  CountingTokens() {
    TokenFileWriter writer(folder / "tokens.h5", {"counting", samples * sequence + 1, "batches_test", false});
    std::vector<std::uint32_t> tokens(samples * sequence + 1);
    std::iota(tokens.begin(), tokens.end(), 0u);
    writer.append_document(tokens, {});
    writer.finish();
    DatasetOptions options;
    options.sequence = sequence;
    options.shuffle = false;
    dataset.emplace(TokenFileReader(folder / "tokens.h5"), options, samples * sequence + 1);
  }
  test::TemporaryFolder folder;
  std::optional<Dataset> dataset;
};

/// A rank's batches, made by a plan of its own.
class Rank {
 public:
  Rank(const GridShape& grid, int rank) : plan_(make_rank_plan(shape_of(grid), rank, device_->kernels())) {}
  int replica() const { return plan_.grid.rank(Axis::data); }
  ReplicaBatches batches() const { return ReplicaBatches(plan_); }

 private:
  static RunShape shape_of(const GridShape& grid) {
    RunShape shape;
    shape.model = load_model_config("llama3-tiny");
    shape.grid = grid;
    shape.micro_batch_size = micro_batch;
    shape.global_batch_size = micro_batch * micro_batches * grid.dp;
    shape.seq_length = sequence;
    return shape;
  }

  std::unique_ptr<Device> device_ = make_host_device(1);
  RankPlan plan_;
};

/// The samples whose tokens have a target, in the order of the rows.
std::vector<std::int64_t> samples_in(const BatchRows& rows) {
  std::vector<std::int64_t> found;
  for (std::size_t row = 0; row < rows.ids.size(); row += sequence)
    if (rows.targets[row] >= 0) {
      BOOST_TEST(rows.ids[row] % sequence == 0);
      found.push_back(rows.ids[row] / sequence);
    }
  return found;
}

std::vector<std::int64_t> range(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(end - begin));
  std::iota(all.begin(), all.end(), begin);
  return all;
}

/// The samples of each micro-batch, those of replica 0 first. All ranks of a replica have the same.
template <class Read>
std::vector<std::vector<std::int64_t>> samples_of_all(const GridShape& grid, const Read& read) {
  std::vector<std::vector<BatchRows>> replicas(static_cast<std::size_t>(grid.dp));
  for (int number = 0; number < grid.world(); ++number) {
    const Rank rank(grid, number);
    auto& mine = replicas[static_cast<std::size_t>(rank.replica())];
    std::vector<BatchRows> batches = read(rank.batches());
    if (mine.empty())
      mine = std::move(batches);
    else {
      BOOST_REQUIRE_EQUAL(mine.size(), batches.size());
      for (std::size_t m = 0; m < mine.size(); ++m)
        BOOST_CHECK(mine[m].ids == batches[m].ids && mine[m].targets == batches[m].targets);
    }
  }
  std::vector<std::vector<std::int64_t>> all(replicas[0].size());
  for (const auto& replica : replicas) {
    BOOST_REQUIRE_EQUAL(replica.size(), all.size());
    for (std::size_t m = 0; m < all.size(); ++m) {
      const auto found = samples_in(replica[m]);
      all[m].insert(all[m].end(), found.begin(), found.end());
    }
  }
  return all;
}

const GridShape grids[] = {{1, 1, 1}, {1, 1, 2}, {2, 1, 2}, {1, 2, 2}, {1, 1, 5}};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(batches, CountingTokens)

BOOST_AUTO_TEST_CASE(micro_batches_of_all_replicas_side_by_side_are_the_global_batch) {
  for (const GridShape& grid : grids) {
    const std::int64_t first = 3, side_by_side = micro_batch * grid.dp;
    const auto all = samples_of_all(grid, [&](const ReplicaBatches& b) { return b.step(*dataset, first); });
    BOOST_REQUIRE_EQUAL(std::ssize(all), micro_batches);
    for (std::int64_t m = 0; m < micro_batches; ++m)
      BOOST_TEST(
          all[static_cast<std::size_t>(m)] == range(first + m * side_by_side, first + (m + 1) * side_by_side),
          boost::test_tools::per_element());
  }
}

// Replicas that get fewer samples, and none, have rows without targets instead.
BOOST_AUTO_TEST_CASE(a_sweep_takes_every_sample_once) {
  for (const GridShape& grid : grids)
    for (const std::int64_t end : {6, 12, 13, 15, 16, 61}) {
      const auto all =
          samples_of_all(grid, [&](const ReplicaBatches& b) { return b.sweep(*dataset, 5, end); });
      std::vector<std::int64_t> taken;
      for (const auto& micro : all) taken.insert(taken.end(), micro.begin(), micro.end());
      BOOST_TEST(taken == range(5, end), boost::test_tools::per_element());
      const std::int64_t round = micro_batch * grid.dp;
      BOOST_TEST(std::ssize(all) == (end - 5 + round - 1) / round);
    }
}

BOOST_AUTO_TEST_SUITE_END()
