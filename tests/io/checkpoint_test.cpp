#include <boost/test/unit_test.hpp>

#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint_samples.hpp"
#include "io/damage.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;

BOOST_AUTO_TEST_SUITE(checkpoint)

BOOST_AUTO_TEST_CASE(flat_slices_are_at_most_three_rectangles) {
  const Rectangle block{10, 13, 100, 104};
  BOOST_CHECK((slice_of_block(block, 0, 12) == std::vector<Rectangle>{block}));
  BOOST_CHECK((slice_of_block(block, 1, 3) == std::vector<Rectangle>{{10, 11, 101, 103}}));
  BOOST_CHECK(
      (slice_of_block(block, 1, 6) == std::vector<Rectangle>{{10, 11, 101, 104}, {11, 12, 100, 102}}));
  BOOST_CHECK((slice_of_block(block, 3, 10) ==
               std::vector<Rectangle>{{10, 11, 103, 104}, {11, 12, 100, 104}, {12, 13, 100, 102}}));
  BOOST_TEST(slice_of_block(block, 5, 5).empty());
  // Any slice: three at most, in order, and as many elements as asked for.
  for (std::int64_t begin = 0; begin <= 12; ++begin) {
    for (std::int64_t end = begin; end <= 12; ++end) {
      const auto parts = slice_of_block(block, begin, end);
      std::int64_t place = begin;
      for (const Rectangle& r : parts) {
        BOOST_TEST((r.row_begin - 10) * 4 + r.column_begin - 100 == place);
        place += r.elements();
      }
      BOOST_TEST(place == end);
      BOOST_TEST(parts.size() <= 3u);
    }
  }
}

// Written from random blocks and flat slices, read in other random rectangles and in both dtypes.
BOOST_AUTO_TEST_CASE(any_partition_reads_what_any_other_wrote) {
  const test::TemporaryFolder folder;
  for (const int ranks : {1, 2, 5}) {
    const fs::path path = folder / checkpoint_folder_name(ranks);
    test::write_sample(path, ranks, static_cast<unsigned>(ranks));
    const CheckpointReader reader(path);
    BOOST_TEST(reader.files() == ranks);
    BOOST_TEST(reader.datasets().size() == test::sample_tensors().size());
    BOOST_TEST(reader.verify() > 0);
    BOOST_TEST(test::holds_sample(reader));
    std::mt19937 random(99);
    for (const auto& tensor : test::sample_tensors()) {
      BOOST_CHECK(reader.find(tensor.dataset)->dtype == tensor.dtype);
      BOOST_CHECK(reader.find(tensor.dataset)->shape == tensor.shape);
      const Rectangle all = whole(tensor.shape);
      for (int i = 0; i < 20; ++i) {
        const auto rows = test::random_cuts(all.rows(), 3, random),
                   columns = test::random_cuts(all.columns(), 3, random);
        const Rectangle r{rows[1], rows[2], columns[1], columns[2]};
        const auto count = static_cast<std::size_t>(r.empty() ? 0 : r.elements());
        std::vector<float> values(count, -1);
        reader.read(tensor.dataset, r, values.data(), DType::fp32);
        BOOST_TEST(test::is_sample(tensor, r, values));
        std::vector<bf16> narrow(count);
        reader.read(tensor.dataset, r, narrow.data(), DType::bf16);
        io::convert_elements(narrow.data(), DType::bf16, values.data(), DType::fp32, count);
        BOOST_TEST(test::is_sample(tensor, r, values));
        // The comparison itself must see one wrong element.
        if (count > 0) {
          values[random() % count] += 1;
          BOOST_TEST(!test::is_sample(tensor, r, values));
        }
      }
    }
  }
}

// Wide rows and a narrow part, so that single rows are read; many rows, so that stretches of them are.
BOOST_AUTO_TEST_CASE(large_blocks_are_read_in_parts) {
  const test::TemporaryFolder folder;
  const test::SampleTensor tensor{"/model/large", DType::fp32, {600, 5000}};
  const fs::path path = folder / "step_00000001";
  const fs::path temporary = begin_checkpoint(path);
  RankFileWriter writer(temporary, 0);
  const auto data = test::sample_data(tensor, {whole(tensor.shape)});
  writer.write({tensor.dataset, tensor.dtype, tensor.shape, {whole(tensor.shape)}, data.data()});
  write_global_view(temporary, {writer.finish()}, "{}");
  commit_checkpoint(temporary, path);
  const CheckpointReader reader(path);
  for (const Rectangle& r :
       {Rectangle{0, 600, 0, 5000}, {3, 600, 4990, 5000}, {0, 599, 100, 3000}, {599, 600, 0, 1}}) {
    std::vector<float> values(static_cast<std::size_t>(r.elements()), -1);
    reader.read(tensor.dataset, r, values.data(), DType::fp32);
    BOOST_TEST(test::is_sample(tensor, r, values));
  }
}

BOOST_AUTO_TEST_CASE(attributes_come_back_as_they_were) {
  const test::TemporaryFolder folder;
  const std::string attributes =
      R"({"config":"a = 1\nb = 2","grid":{"tp":2},"rate":0.1,"seed":18446744073709551615,"step":100})";
  test::write_sample(folder / "step_00000100", 2, 1, attributes);
  BOOST_TEST(CheckpointReader(folder / "step_00000100").attributes() == attributes);
}

BOOST_AUTO_TEST_CASE(shares_of_verification_make_up_the_whole) {
  const test::TemporaryFolder folder;
  test::write_sample(folder / "step_00000100", 4);
  const CheckpointReader reader(folder / "step_00000100");
  const std::int64_t all = reader.verify();
  std::int64_t elements = 0;
  for (const auto& tensor : test::sample_tensors()) {
    elements += whole(tensor.shape).elements() * static_cast<std::int64_t>(size_of(tensor.dtype));
  }
  BOOST_TEST(all == elements);
  for (const int parts : {2, 3, 7, 1000}) {
    std::int64_t sum = 0;
    for (int part = 0; part < parts; ++part) sum += reader.verify(part, parts);
    BOOST_TEST(sum == all);
  }
}

BOOST_AUTO_TEST_CASE(gaps_overlaps_and_contradictions_are_refused_before_anything_is_visible) {
  const test::TemporaryFolder folder;
  const std::vector<float> data(100, 1.0f);
  const auto view_of = [&](const std::vector<CheckpointPiece>& pieces) {
    const fs::path temporary = begin_checkpoint(folder / "step_00000001");
    std::vector<std::string> manifests;
    for (std::size_t rank = 0; rank < pieces.size(); ++rank) {
      RankFileWriter writer(temporary, static_cast<int>(rank));
      writer.write(pieces[rank]);
      manifests.push_back(writer.finish());
    }
    write_global_view(temporary, manifests, "{}");
  };
  const auto piece = [&](Rectangle r, std::vector<std::int64_t> shape = {10, 10}, DType dtype = DType::fp32) {
    return CheckpointPiece{"/model/a", dtype, std::move(shape), {r}, data.data()};
  };
  BOOST_CHECK_NO_THROW(view_of({piece({0, 10, 0, 4}), piece({0, 10, 4, 10})}));
  BOOST_CHECK_EXCEPTION(view_of({piece({0, 10, 0, 4}), piece({0, 9, 4, 10})}), ContractViolation,
                        says({"94 of 100", "/model/a"}));
  BOOST_CHECK_EXCEPTION(view_of({piece({0, 10, 0, 5}), piece({0, 10, 4, 10})}), ContractViolation,
                        says({"/model/a", "overlap"}));
  // As many elements as the tensor has, but in the wrong places.
  BOOST_CHECK_EXCEPTION(view_of({piece({0, 5, 0, 10}), piece({4, 9, 0, 10})}), ContractViolation,
                        says({"overlap"}));
  BOOST_CHECK_EXCEPTION(view_of({piece({0, 5, 0, 10}), piece({5, 10, 0, 10}, {10, 10}, DType::bf16)}),
                        ContractViolation, says({"rank_00001.h5", "another shape or type"}));
  BOOST_CHECK_THROW(view_of({piece({0, 11, 0, 10})}), ContractViolation);
}

BOOST_AUTO_TEST_CASE(folders_are_listed_newest_first_without_unfinished_ones) {
  const test::TemporaryFolder folder;
  BOOST_TEST(list_checkpoints(folder / "nothing").empty());
  for (const char* name : {"step_00000100", "step_00000020", "step_123456789", "step_00000300.partial",
                           "step_00000020.removed", "step_", "step_12x", "other"}) {
    fs::create_directory(folder / name);
  }
  const auto list = list_checkpoints(folder.path());
  BOOST_REQUIRE(list.size() == 3u);
  BOOST_TEST(list[0].filename() == "step_123456789");
  BOOST_TEST(checkpoint_step(list[1]) == 100);
  BOOST_TEST(checkpoint_step(list[2]) == 20);
  remove_leftovers(folder.path());
  BOOST_TEST(!fs::exists(folder / "step_00000300.partial"));
  BOOST_TEST(!fs::exists(folder / "step_00000020.removed"));
  BOOST_TEST(fs::exists(folder / "other"));
  BOOST_TEST(list_checkpoints(folder.path()).size() == 3u);
  remove_checkpoint(folder / "step_00000100");
  BOOST_TEST(list_checkpoints(folder.path()).size() == 2u);
}

BOOST_AUTO_TEST_CASE(a_checkpoint_of_the_same_name_is_replaced_at_once) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "step_00000100";
  test::write_sample(path, 2, 1, R"({"which":"old"})");
  const fs::path next = test::write_sample_parts(path, 3, 2, R"({"which":"new"})");
  BOOST_TEST(CheckpointReader(path).attributes() == R"({"which":"old"})");
  commit_checkpoint(next, path);
  const CheckpointReader reader(path);
  BOOST_TEST(reader.attributes() == R"({"which":"new"})");
  BOOST_TEST(test::holds_sample(reader));
  BOOST_TEST(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
}

// What a kill between the two renames leaves where folders can't be exchanged in one go.
BOOST_AUTO_TEST_CASE(an_interrupted_replacement_is_read_as_it_is_and_gets_its_name_back_for_writing) {
  const test::TemporaryFolder folder;
  const fs::path replaced = folder / "step_00000100.replaced";
  test::write_sample(replaced);
  fs::create_directory(folder / "step_00000020");
  const auto list = list_checkpoints(folder.path());
  BOOST_REQUIRE(list.size() == 2u);
  BOOST_TEST(list[0] == replaced);
  BOOST_TEST(test::holds_sample(CheckpointReader(list[0])));
  remove_leftovers(folder.path());
  BOOST_TEST(!fs::exists(replaced));
  BOOST_TEST(list_checkpoints(folder.path()).front() == folder / "step_00000100");
  BOOST_TEST(test::holds_sample(CheckpointReader(folder / "step_00000100")));
  // Cut off later, the new one has the name.
  fs::create_directory(replaced);
  BOOST_TEST(list_checkpoints(folder.path()).size() == 2u);
  remove_leftovers(folder.path());
  BOOST_TEST(!fs::exists(replaced));
  BOOST_TEST(test::holds_sample(CheckpointReader(folder / "step_00000100")));
}

BOOST_AUTO_TEST_CASE(what_cannot_be_listed_is_not_taken_for_empty) {
  const test::TemporaryFolder folder;
  fs::create_symlink("loop", folder / "loop");
  test::write_bytes(folder / "file", "no folder");
  for (const auto& [name, reason] : {std::pair{"loop", "symbolic links"}, {"file", "Not a directory"}}) {
    BOOST_CHECK_EXCEPTION(list_checkpoints(folder / name), CheckpointError, says({name, reason}));
    BOOST_CHECK_EXCEPTION(remove_leftovers(folder / name), CheckpointError, says({name, reason}));
  }
  BOOST_TEST(list_checkpoints(folder.path()).empty());
}

// One name that leads nowhere hides none of the others, and stays in nobody's way.
BOOST_AUTO_TEST_CASE(names_without_a_folder_are_listed_refused_and_replaced) {
  const test::TemporaryFolder folder;
  test::write_sample(folder / "step_00000100");
  fs::create_symlink("step_00000400", folder / "step_00000400");
  fs::create_symlink("nowhere", folder / "step_00000300");
  test::write_bytes(folder / "step_00000200", "a file");
  const auto list = list_checkpoints(folder.path());
  BOOST_REQUIRE(list.size() == 4u);
  const char* reasons[] = {"symbolic links", "no such folder", "it is a file"};
  for (std::size_t i = 0; i < 3; ++i) {
    BOOST_CHECK_EXCEPTION(CheckpointReader{list[i]}, CheckpointError, says({list[i].string(), reasons[i]}));
    test::write_sample(list[i]);
    BOOST_TEST(test::holds_sample(CheckpointReader(list[i])));
  }
  BOOST_TEST(list[3] == folder / "step_00000100");
  BOOST_TEST(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 4);
}

// The old folder of a replacement is not put over a link that has its name since.
BOOST_AUTO_TEST_CASE(a_replaced_folder_goes_where_a_link_has_its_name) {
  const test::TemporaryFolder folder;
  fs::create_symlink("step_00000100", folder / "step_00000100");
  fs::create_directory(folder / "step_00000100.replaced");
  BOOST_TEST(list_checkpoints(folder.path()).size() == 1u);
  BOOST_CHECK_NO_THROW(remove_leftovers(folder.path()));
  BOOST_TEST(fs::is_symlink(folder / "step_00000100"));
}

BOOST_AUTO_TEST_CASE(a_moved_folder_loads) {
  const test::TemporaryFolder folder;
  test::write_sample(folder / "step_00000100");
  fs::create_directory(folder / "elsewhere");
  fs::rename(folder / "step_00000100", folder / "elsewhere/renamed");
  const CheckpointReader reader(folder / "elsewhere/renamed");
  BOOST_TEST(reader.verify() > 0);
  BOOST_TEST(test::holds_sample(reader));
}

BOOST_AUTO_TEST_SUITE_END()
