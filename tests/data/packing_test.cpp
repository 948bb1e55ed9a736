#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <numeric>
#include <random>
#include <set>

#include "base/error.hpp"
#include "data/dataset.hpp"
#include "data/packed_samples.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using llama3d::test::says;
using llama3d::test::TemporaryFolder;

namespace {

const auto equal = boost::test_tools::per_element();
using Values = std::vector<std::int32_t>;
using Lengths = std::vector<std::int64_t>;

/// Token i of the file is i; every third is no target when there is a mask.
struct CountingFile {
  TemporaryFolder folder;
  Lengths offsets = {0};

  explicit CountingFile(const Lengths& lengths, bool masked = false) {
    TokenFileWriter writer(folder / "tokens.h5", {"counting", 1'000'000, "packing_test", masked});
    for (const std::int64_t length : lengths) {
      std::vector<std::uint32_t> tokens(static_cast<std::size_t>(length));
      std::iota(tokens.begin(), tokens.end(), static_cast<std::uint32_t>(offsets.back()));
      std::vector<std::uint8_t> learn;
      for (const std::uint32_t token : tokens)
        if (masked) learn.push_back(token % 3 != 0);
      writer.append_document(tokens, learn);
      offsets.push_back(offsets.back() + length);
    }
    writer.finish();
  }
  TokenFileReader reader() const { return TokenFileReader(folder / "tokens.h5"); }
  Dataset dataset(const DatasetOptions& options) const { return {reader(), options, 1'000'000}; }
};

DatasetOptions packed(std::int64_t sequence) {
  DatasetOptions options;
  options.sequence = sequence;
  options.shuffle = false;
  options.packing = Packing::documents;
  return options;
}

/// LLaMA-Factory's greedy knapsack as it stands in its documentation: fill one sample after the other, each
/// time with the longest that fits.
std::multiset<std::multiset<std::int64_t>> knapsacks(Lengths lengths, std::int64_t capacity) {
  std::sort(lengths.begin(), lengths.end());
  std::multiset<std::multiset<std::int64_t>> all;
  while (!lengths.empty()) {
    std::multiset<std::int64_t> one;
    for (std::int64_t room = capacity;;) {
      const auto after = std::upper_bound(lengths.begin(), lengths.end(), room);
      if (after == lengths.begin()) break;
      one.insert(*std::prev(after));
      room -= *std::prev(after);
      lengths.erase(std::prev(after));
    }
    all.insert(one);
  }
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(packing)

BOOST_AUTO_TEST_CASE(a_batch_by_hand) {
  // Documents [0, 3), [3, 10), [10, 12), [12, 13), [13, 18) in samples of 6: the second is cut to [3, 9), the
  // one-token document is left out.
  const CountingFile file({3, 7, 2, 1, 5});
  const Dataset dataset = file.dataset(packed(6));
  BOOST_TEST(dataset.samples() == 3);
  BOOST_TEST(dataset.list().describe() ==
             "4 documents packed into 3 samples of 6 tokens, 88.9% filled; 1 longer document is cut: "
             "`packing` stream loses nothing");
  const BatchRows rows = dataset.read(0, 3, 19);
  BOOST_TEST(rows.ids == (Values{0, 1, 2, 10, 11, 0, 3, 4, 5, 6, 7, 8, 13, 14, 15, 16, 17, 0, 0}), equal);
  BOOST_TEST(rows.targets == (Values{1, 2, -1, 11, -1, -1, 4, 5, 6, 7, 8, -1, 14, 15, 16, 17, -1, -1, -1}),
             equal);
  BOOST_TEST(rows.start == (Values{0, 0, 0, 3, 3, 5, 6, 6, 6, 6, 6, 6, 12, 12, 12, 12, 12, 17, 18}), equal);
  BOOST_TEST(rows.end == (Values{3, 3, 3, 5, 5, 6, 12, 12, 12, 12, 12, 12, 17, 17, 17, 17, 17, 18, 19}),
             equal);
  BOOST_TEST(rows.position == (Values{0, 1, 2, 0, 1, 0, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0, 0}), equal);
  BOOST_TEST(dataset.tokens(0, 3) == 16);
  BOOST_TEST(dataset.tokens(2, 2) == 5 + 5);  // over the end of the epoch
}

BOOST_AUTO_TEST_CASE(attention_across_documents_on_request) {
  const CountingFile file({3, 2});
  DatasetOptions options = packed(6);
  options.separate_documents = false;
  const BatchRows rows = file.dataset(options).read(0, 1, 6);
  BOOST_TEST(rows.targets == (Values{1, 2, -1, 4, -1, -1}), equal);
  BOOST_TEST(rows.start == (Values{0, 0, 0, 0, 0, 5}), equal);
  BOOST_TEST(rows.end == (Values{5, 5, 5, 5, 5, 6}), equal);
  BOOST_TEST(rows.position == (Values{0, 1, 2, 3, 4, 0}), equal);
}

BOOST_AUTO_TEST_CASE(the_mask_decides_on_targets) {
  const CountingFile file({4, 4}, true), longer({9, 10}, true);
  BOOST_TEST(longer.dataset(packed(8)).list().describe().ends_with(
      "; 2 longer documents are cut: tokenize with `cutoff 8` to keep part of every answer"));
  const BatchRows rows = file.dataset(packed(8)).read(0, 1, 8);
  BOOST_TEST(rows.targets == (Values{1, 2, -1, -1, 5, -1, 7, -1}), equal);
}

BOOST_AUTO_TEST_CASE(samples_are_those_of_the_greedy_knapsack) {
  std::mt19937 random(11);
  for (const std::int64_t sequence : {2, 7, 50, 1000}) {
    Lengths lengths(2000);
    for (auto& length : lengths)
      length = 2 + static_cast<std::int64_t>(random() % static_cast<unsigned>(sequence - 1));
    const CountingFile file(lengths);
    const TokenFileReader reader = file.reader();
    const PackedSamples samples(reader, {.sequence = sequence});
    std::multiset<std::multiset<std::int64_t>> packed_lengths;
    std::set<std::int64_t> begins;
    std::int64_t tokens = 0, previous = -1;
    std::vector<Stretch> stretches;
    for (std::int64_t i = 0; i < samples.samples(); ++i) {
      samples.stretches(i, stretches);
      std::multiset<std::int64_t> one;
      std::int64_t sum = 0;
      for (const Stretch& stretch : stretches) {
        one.insert(stretch.length);
        begins.insert(stretch.begin);
        sum += stretch.length;
      }
      packed_lengths.insert(one);
      BOOST_TEST(sum <= sequence);
      BOOST_TEST(samples.tokens(i) == sum);
      tokens += sum;
      BOOST_TEST(std::is_sorted(stretches.begin(), stretches.end(),
                                [](const Stretch& a, const Stretch& b) { return a.begin < b.begin; }));
      BOOST_TEST(stretches.front().begin > previous);
      previous = stretches.front().begin;
    }
    BOOST_TEST((packed_lengths == knapsacks(lengths, sequence)));
    BOOST_TEST(begins.size() == lengths.size());  // each document once
    BOOST_TEST(tokens == reader.tokens());
    BOOST_TEST(samples.efficiency() ==
               static_cast<double>(tokens) / static_cast<double>(samples.samples() * sequence));
  }
}

BOOST_AUTO_TEST_CASE(train_and_valid_share_out_the_documents) {
  const CountingFile file(Lengths(100, 10));
  DatasetOptions options = packed(20);
  options.valid_fraction = 0.1;
  options.split = Split::train;
  const Dataset train = file.dataset(options);
  options.split = Split::valid;
  const Dataset valid = file.dataset(options);
  BOOST_TEST(train.samples() == 45);
  BOOST_TEST(valid.samples() == 5);
  BOOST_TEST(train.read(44, 1, 20).ids.back() == 899);
  BOOST_TEST(valid.read(0, 1, 20).ids.front() == 900);
}

BOOST_AUTO_TEST_CASE(shuffled_epochs_hold_every_sample) {
  const CountingFile file(Lengths(60, 10));
  DatasetOptions options = packed(20);
  options.shuffle = true;
  const Dataset dataset = file.dataset(options);
  std::set<std::int32_t> seen;
  for (std::int64_t i = 30; i < 60; ++i) seen.insert(dataset.read(i, 1, 20).ids[0]);
  BOOST_TEST(seen.size() == 30u);
  BOOST_TEST(dataset.read(30, 1, 20).ids[0] ==
             dataset.read(0, 60, 1200).ids[static_cast<std::size_t>(30 * 20)]);
}

BOOST_AUTO_TEST_CASE(automatic_goes_by_the_mask) {
  const CountingFile plain({5, 5}), masked({5, 5}, true), one({10}, true);
  BOOST_CHECK(resolved(Packing::automatic, plain.reader()) == Packing::stream);
  BOOST_CHECK(resolved(Packing::automatic, masked.reader()) == Packing::documents);
  BOOST_CHECK(resolved(Packing::automatic, one.reader()) == Packing::documents);
  const TemporaryFolder folder;
  std::string llmq(1024 + 4 + 1, '\0');  // a mask, and no word of documents
  llmq.replace(0, 8, "BIN.TOK\n");
  const std::int32_t header[] = {2, 4, 1, 259, 1};
  std::memcpy(llmq.data() + 8, header, sizeof header);
  const TokenFileReader unknown(folder.write("a.bin", llmq));
  BOOST_TEST(unknown.info().has_loss_mask);
  BOOST_CHECK(resolved(Packing::automatic, unknown) == Packing::stream);
  BOOST_CHECK(resolved(Packing::stream, masked.reader()) == Packing::stream);
  for (const char* word : {"auto", "stream", "documents"}) BOOST_TEST(word_of(packing_from(word)) == word);
  BOOST_CHECK_EXCEPTION(packing_from("neat"), ConfigurationError, says({"`packing neat`"}));
}

BOOST_AUTO_TEST_CASE(nothing_to_pack_is_refused) {
  BOOST_CHECK_EXCEPTION(CountingFile({1, 1}).dataset(packed(4)), DataError,
                        says({"tokens.h5", "2 tokens or more"}));
  BOOST_CHECK_EXCEPTION(CountingFile(Lengths{}).dataset(packed(4)), DataError, says({"tokens.h5"}));
  DatasetOptions options = packed(4);
  options.valid_fraction = 0.5;
  for (const Split split : {Split::train, Split::valid}) {
    options.split = split;
    BOOST_CHECK_EXCEPTION(CountingFile({4}).dataset(options), DataError, says({"none to train on"}));
  }
}

BOOST_AUTO_TEST_SUITE_END()
