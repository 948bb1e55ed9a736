#include "data/dataset.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <numeric>
#include <set>

#include "base/error.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using llama3d::test::says;
using llama3d::test::TemporaryFolder;

namespace {

constexpr std::int64_t vocabulary = 1000;

/// Documents of these lengths; token i of the file is i, so that a value tells where it came from.
struct CountingFile {
  TemporaryFolder folder;
  std::vector<std::int64_t> lengths;
  std::vector<std::uint8_t> mask;  // empty: none

  explicit CountingFile(std::vector<std::int64_t> document_lengths, bool masked = false)
      : lengths(std::move(document_lengths)) {
    TokenFileWriter writer(folder / "tokens.h5", {"counting", vocabulary, "dataset_test", masked});
    std::uint32_t next = 0;
    for (const std::int64_t length : lengths) {
      std::vector<std::uint32_t> tokens(static_cast<std::size_t>(length));
      std::iota(tokens.begin(), tokens.end(), next);
      next += static_cast<std::uint32_t>(length);
      std::vector<std::uint8_t> learn;
      for (const std::uint32_t token : tokens)
        if (masked) learn.push_back(token % 3 != 0);
      writer.append_document(tokens, learn);
      mask.insert(mask.end(), learn.begin(), learn.end());
    }
    writer.finish();
  }
  Dataset dataset(const DatasetOptions& options) const {
    return Dataset(TokenFileReader(folder / "tokens.h5"), options, vocabulary);
  }
  /// Which document token `index` belongs to, counted anew.
  std::int64_t document_of(std::int64_t index) const {
    std::int64_t document = 0;
    for (const std::int64_t length : lengths) {
      if (index < length) break;
      index -= length;
      ++document;
    }
    return document;
  }
};

/// Row by row from the definition, with no notion of offsets: what Dataset::read must give for one sample.
BatchRows expected_sample(const CountingFile& file, std::int64_t begin, std::int64_t sequence,
                          bool separate) {
  BatchRows rows;
  const auto same = [&](std::int64_t a, std::int64_t b) {
    return !separate || file.document_of(a) == file.document_of(b);
  };
  for (std::int64_t i = begin; i < begin + sequence; ++i) {
    const bool learn = file.mask.empty() || file.mask[static_cast<std::size_t>(i + 1)];
    rows.ids.push_back(static_cast<std::int32_t>(i));
    rows.targets.push_back(same(i, i + 1) && learn ? static_cast<std::int32_t>(i + 1) : -1);
    std::int64_t first = i, last = i;
    while (first > begin && same(first - 1, i)) --first;
    while (last + 1 < begin + sequence && same(last + 1, i)) ++last;
    rows.start.push_back(static_cast<std::int32_t>(first - begin));
    rows.end.push_back(static_cast<std::int32_t>(last + 1 - begin));
    rows.position.push_back(static_cast<std::int32_t>(i - first));
  }
  return rows;
}

bool same_rows(const BatchRows& a, const BatchRows& b) {
  return a.ids == b.ids && a.targets == b.targets && a.start == b.start && a.end == b.end &&
         a.position == b.position;
}

DatasetOptions in_order(std::int64_t sequence) {
  DatasetOptions options;
  options.sequence = sequence;
  options.shuffle = false;
  options.packing = Packing::stream;
  return options;
}

/// Unshuffled number of the sample that each global index yields.
std::vector<std::int64_t> order(const Dataset& dataset, std::int64_t sequence, std::int64_t first,
                                std::int64_t count) {
  std::vector<std::int64_t> samples;
  for (std::int64_t i = first; i < first + count; ++i)
    samples.push_back(dataset.read(i, 1, sequence).ids[0] / sequence);
  return samples;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(dataset)

BOOST_AUTO_TEST_CASE(a_batch_by_hand) {
  // Documents [0, 3) and [3, 10); samples of four: the first is 0 1 2 | 3, the second 4 5 6 7.
  const CountingFile file({3, 7});
  const BatchRows rows = file.dataset(in_order(4)).read(0, 2, 10);
  const auto equal = boost::test_tools::per_element();
  using Values = std::vector<std::int32_t>;
  BOOST_TEST(rows.ids == (Values{0, 1, 2, 3, 4, 5, 6, 7, 0, 0}), equal);
  BOOST_TEST(rows.targets == (Values{1, 2, -1, 4, 5, 6, 7, 8, -1, -1}), equal);
  BOOST_TEST(rows.start == (Values{0, 0, 0, 3, 4, 4, 4, 4, 8, 9}), equal);
  BOOST_TEST(rows.end == (Values{3, 3, 3, 4, 8, 8, 8, 8, 9, 10}), equal);
  BOOST_TEST(rows.position == (Values{0, 1, 2, 0, 0, 1, 2, 3, 0, 0}), equal);
}

BOOST_AUTO_TEST_CASE(every_sample_is_as_defined) {
  for (const bool masked : {false, true})
    for (const bool separate : {false, true})
      for (const std::int64_t sequence : {1, 2, 5, 8, 16}) {
        const CountingFile file({1, 4, 8, 8, 1, 1, 20, 5, 33},
                                masked);  // boundaries on and off the samples' own
        DatasetOptions options = in_order(sequence);
        options.separate_documents = separate;
        const Dataset dataset = file.dataset(options);
        BOOST_TEST(dataset.samples() == 80 / sequence);  // 81 tokens
        for (std::int64_t i = 0; i < dataset.samples(); ++i) {
          const BatchRows rows = dataset.read(i, 1, sequence);
          BatchRows expected = expected_sample(file, i * sequence, sequence, separate);
          BOOST_TEST(same_rows(rows, expected), "sample " << i << " of " << sequence << " tokens");
          expected.targets.back() += 1;
          BOOST_TEST(!same_rows(rows, expected));
        }
      }
}

BOOST_AUTO_TEST_CASE(targets_cover_each_pair_once) {
  const CountingFile file({10, 30, 2, 23});  // 65 tokens, 8 samples of 8
  const BatchRows rows = file.dataset(in_order(8)).read(0, 8, 64);
  std::int64_t targets = 0;
  for (std::size_t row = 0; row < rows.ids.size(); ++row) {
    if (rows.targets[row] < 0) continue;
    ++targets;
    BOOST_TEST(rows.targets[row] == rows.ids[row] + 1);
  }
  BOOST_TEST(targets == 64 - 3);  // three document boundaries
}

BOOST_AUTO_TEST_CASE(a_batch_is_its_samples_one_after_the_other) {
  const CountingFile file({10, 30, 2, 60});
  DatasetOptions options = in_order(8);
  options.shuffle = true;
  const Dataset dataset = file.dataset(options);
  const BatchRows batch = dataset.read(5, 4, 32);
  for (std::int64_t i = 0; i < 4; ++i) {
    const BatchRows one = dataset.read(5 + i, 1, 8);
    for (std::size_t row = 0; row < 8; ++row) {
      const std::size_t there = static_cast<std::size_t>(i) * 8 + row;
      BOOST_TEST(batch.ids[there] == one.ids[row]);
      BOOST_TEST(batch.targets[there] == one.targets[row]);
      BOOST_TEST(batch.start[there] == one.start[row] + i * 8);
      BOOST_TEST(batch.end[there] == one.end[row] + i * 8);
      BOOST_TEST(batch.position[there] == one.position[row]);
    }
  }
}

BOOST_AUTO_TEST_CASE(epochs_are_reshuffled_and_complete) {
  const CountingFile file({400});
  DatasetOptions options = in_order(4);
  options.shuffle = true;
  options.seed = 11;
  const Dataset dataset = file.dataset(options);
  const std::int64_t samples = dataset.samples();
  BOOST_REQUIRE(samples == 99);
  const auto first = order(dataset, 4, 0, samples), second = order(dataset, 4, samples, samples);
  for (const auto& epoch : {first, second}) {
    BOOST_TEST(std::set<std::int64_t>(epoch.begin(), epoch.end()).size() == 99u);
    BOOST_TEST(!std::is_sorted(epoch.begin(), epoch.end()));
  }
  BOOST_TEST((first != second));
  BOOST_TEST((order(file.dataset(options), 4, 0, samples) == first));
  options.seed = 12;
  BOOST_TEST((order(file.dataset(options), 4, 0, samples) != first));
  options.shuffle = false;
  const auto unshuffled = order(file.dataset(options), 4, samples, samples);
  BOOST_TEST(std::is_sorted(unshuffled.begin(), unshuffled.end()));
  // As the header defines it: sample g is Permutation(samples, seed, g / samples)(g % samples).
  const Permutation permutation(samples, 11, 1);
  BOOST_TEST(second[7] == permutation(7));
}

BOOST_AUTO_TEST_CASE(train_and_valid_share_the_samples) {
  const CountingFile file({401});  // 100 samples of 4
  DatasetOptions options = in_order(4);
  options.shuffle = true;
  options.valid_fraction = 0.1;
  options.split = Split::train;
  const Dataset train = file.dataset(options);
  options.split = Split::valid;
  const Dataset valid = file.dataset(options);
  options.split = Split::all;
  BOOST_TEST(file.dataset(options).samples() == 100);
  BOOST_TEST(train.samples() == 90);
  BOOST_TEST(valid.samples() == 10);
  const auto learned = order(train, 4, 0, 90);
  BOOST_TEST(*std::max_element(learned.begin(), learned.end()) == 89);
  std::vector<std::int64_t> last(10);
  std::iota(last.begin(), last.end(), 90);
  BOOST_TEST((order(valid, 4, 0, 10) == last));
  BOOST_TEST((order(valid, 4, 10, 10) == last));  // the second epoch too, and for any seed
  options.split = Split::valid;
  options.seed = 77;
  BOOST_TEST((order(file.dataset(options), 4, 0, 10) == last));
  options.valid_fraction = 0.0001;
  BOOST_TEST(file.dataset(options).samples() == 1);
}

BOOST_AUTO_TEST_CASE(impossible_wishes_are_refused) {
  const CountingFile file({6, 3});
  BOOST_TEST(file.dataset(in_order(8)).samples() == 1);
  BOOST_CHECK_EXCEPTION(file.dataset(in_order(9)), DataError, says({"tokens.h5", "9 tokens", "needs 10"}));
  DatasetOptions options = in_order(8);
  options.valid_fraction = 0.1;
  options.split = Split::train;
  BOOST_CHECK_EXCEPTION(file.dataset(options), DataError,
                        says({"tokens.h5", "1 samples", "none to train on"}));
  const auto open = [&](std::int64_t model_vocabulary) {
    return Dataset(TokenFileReader(file.folder / "tokens.h5"), in_order(8), model_vocabulary);
  };
  // What the file holds counts, not what its tokenizer knows beside.
  BOOST_CHECK_NO_THROW(open(9));
  BOOST_CHECK_EXCEPTION(open(8), DataError, says({"tokens.h5", "up to 8", "counting", "vocabulary is 8"}));
  const CountingFile empty({0});
  BOOST_CHECK_EXCEPTION(empty.dataset(in_order(1)), DataError, says({"0 tokens"}));
}

BOOST_AUTO_TEST_CASE(ids_are_checked_where_the_file_has_no_vocabulary) {
  const TemporaryFolder folder;
  std::string bytes(1024, '\0');  // llm.c: 300 tokens of 16 bits
  const std::int32_t header[] = {20240520, 1, 300};
  std::memcpy(bytes.data(), header, sizeof header);
  for (std::uint16_t token = 0; token < 300; ++token) bytes.append(reinterpret_cast<const char*>(&token), 2);
  const auto path = folder.write("tokens.bin", bytes);
  const Dataset fits(TokenFileReader(path), in_order(8), 300), small(TokenFileReader(path), in_order(8), 259);
  BOOST_TEST(fits.read(36, 1, 8).ids.back() == 295);
  BOOST_CHECK_NO_THROW(small.read(31, 1, 8));
  BOOST_CHECK_EXCEPTION(small.read(32, 1, 8), DataError,
                        says({"tokens.bin", "token 259 is 259", "vocabulary is 259"}));
}

BOOST_AUTO_TEST_CASE(padding_alone_is_a_batch_and_too_few_rows_are_a_bug) {
  const CountingFile file({100});
  const Dataset dataset = file.dataset(in_order(4));
  const BatchRows rows = dataset.read(3, 0, 2);
  BOOST_TEST(rows.targets == (std::vector<std::int32_t>{-1, -1}), boost::test_tools::per_element());
  BOOST_TEST(rows.end == (std::vector<std::int32_t>{1, 2}), boost::test_tools::per_element());
  BOOST_CHECK_THROW(dataset.read(0, 2, 7), ContractViolation);
  BOOST_CHECK_THROW(dataset.read(-1, 1, 4), ContractViolation);
}

BOOST_AUTO_TEST_SUITE_END()
