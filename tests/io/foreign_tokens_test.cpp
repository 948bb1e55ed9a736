// Token files of other programs, written here byte by byte as their writers do.

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <numeric>

#include "base/error.hpp"
#include "io/damage.hpp"
#include "io/describe.hpp"
#include "io/tokens/token_file.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using llama3d::test::says;
using llama3d::test::TemporaryFolder;

namespace {

const auto equal = boost::test_tools::per_element();
using Tokens = std::vector<std::uint32_t>;
using Offsets = std::vector<std::uint64_t>;

template <class Stored, class Values>
std::string bytes_of(const Values& values) {
  std::string bytes;
  for (const auto value : values) {
    const auto stored = static_cast<Stored>(value);
    bytes.append(reinterpret_cast<const char*>(&stored), sizeof stored);
  }
  return bytes;
}

template <class Stored>
std::string one(std::int64_t value) {
  return bytes_of<Stored>(std::vector{value});
}

std::string padded(std::string header) {
  header.resize(1024, '*');
  return header;
}

Tokens all_tokens(const TokenFileReader& reader) {
  Tokens tokens(static_cast<std::size_t>(reader.tokens()));
  reader.read(0, tokens);
  return tokens;
}

struct Megatron {
  std::vector<std::int64_t> lengths = {3, 0, 4, 5}, places = {0, 3, 3, 7}, bounds = {0, 2, 4};
  std::int64_t version = 1, extra = 0;
  std::string magic = std::string("MMIDIDX\0\0", 9);

  std::string index(int code, std::int64_t bytes) const {
    std::vector<std::int64_t> byte_places = places;
    for (auto& place : byte_places) place *= bytes;
    return magic + one<std::uint64_t>(version) + one<std::uint8_t>(code) +
           one<std::uint64_t>(std::ssize(lengths)) + one<std::uint64_t>(std::ssize(bounds)) +
           bytes_of<std::int32_t>(lengths) + bytes_of<std::int64_t>(byte_places) +
           bytes_of<std::int64_t>(bounds) + std::string(static_cast<std::size_t>(extra), '\0');
  }
};

Tokens counting(std::size_t count, std::uint32_t first = 100) {
  Tokens tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

struct Fixture {
  TemporaryFolder folder;

  void refused(const std::string& name, std::initializer_list<std::string> words) {
    BOOST_CHECK_EXCEPTION(TokenFileReader(folder / name), DataError, says(words));
    BOOST_CHECK_EXCEPTION(TokenFileReader(folder / name), DataError, says({name}));
  }
  void megatron_refused(const Megatron& made, std::initializer_list<std::string> words) {
    folder.write("bad.idx", made.index(8, 2));
    folder.write("bad.bin", bytes_of<std::uint16_t>(counting(12)));
    refused("bad.bin", words);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(foreign_tokens, Fixture)

BOOST_AUTO_TEST_CASE(megatron_of_every_integer_type) {
  const std::tuple<int, int, std::string> types[] = {
      {1, 1, bytes_of<std::uint8_t>(counting(12))}, {2, 1, bytes_of<std::int8_t>(counting(12))},
      {3, 2, bytes_of<std::int16_t>(counting(12))}, {4, 4, bytes_of<std::int32_t>(counting(12))},
      {5, 8, bytes_of<std::int64_t>(counting(12))}, {8, 2, bytes_of<std::uint16_t>(counting(12))}};
  for (const auto& [code, size, data] : types)
    for (const std::int64_t extra : {0, 4}) {
      Megatron made;
      made.extra = extra;
      folder.write("a.idx", made.index(code, size));
      folder.write("a.bin", data);
      for (const char* name : {"a.bin", "a.idx"}) {
        const TokenFileReader reader(folder / name);
        BOOST_TEST(reader.tokens() == 12);
        BOOST_TEST(reader.documents() == (Offsets{0, 3, 12}), equal);
        BOOST_TEST(all_tokens(reader) == counting(12), equal);
        BOOST_TEST(reader.info().vocabulary_size == 0);
        BOOST_TEST(!reader.info().has_loss_mask);
        Tokens part(3);
        reader.read(5, part);
        BOOST_TEST(part == counting(3, 105), equal);
      }
    }
  const std::string text = describe_file(folder / "a.bin", true);
  for (const char* words :
       {"12 tokens in 2 documents", "vocabulary_size = unknown", "Megatron-LM", "100 101 102"})
    BOOST_TEST((text.find(words) != std::string::npos), text);
}

BOOST_AUTO_TEST_CASE(ids_of_16_and_32_bits_keep_their_value) {
  Megatron made;
  made.lengths = {2}, made.places = {0}, made.bounds = {0, 1};
  folder.write("a.idx", made.index(8, 2));
  folder.write("a.bin", bytes_of<std::uint16_t>(Tokens{65535, 32768}));
  BOOST_TEST(all_tokens(TokenFileReader(folder / "a.bin")) == (Tokens{65535, 32768}), equal);
  folder.write("b.idx", made.index(4, 4));
  folder.write("b.bin", bytes_of<std::int32_t>(std::vector<std::int64_t>{128255, -1}));
  BOOST_CHECK_EXCEPTION(all_tokens(TokenFileReader(folder / "b.bin")), DataError,
                        says({"b.bin", "token 1 is -1"}));
}

BOOST_AUTO_TEST_CASE(damaged_megatron_files_are_refused) {
  megatron_refused({.magic = std::string("MMIDIDY\0\0", 9)}, {"no index"});
  megatron_refused({.version = 2}, {"version 2"});
  megatron_refused({.lengths = {3, 0, 4, 6}}, {"bad.bin", "truncated", "13 integers"});
  megatron_refused({.lengths = {3, 0, 4, 4}}, {"has 24 bytes", "11 tokens"});
  megatron_refused({.lengths = {3, 0, -4, 5}}, {"sequence 2", "-4"});
  megatron_refused({.places = {0, 3, 4, 7}}, {"sequence 2", "byte 8", "byte 6"});
  megatron_refused({.bounds = {0, 2}}, {"end at sequence 2 of 4"});
  megatron_refused({.bounds = {1, 4}}, {"document bound 0"});
  megatron_refused({.bounds = {0, 3, 2, 4}}, {"document bound 2"});
  megatron_refused({.bounds = {0, 5}}, {"document bound 1"});
  megatron_refused({.bounds = {}}, {"end at sequence 0"});
  megatron_refused({.extra = 3}, {"3 bytes too many"});
  folder.write("bad.idx", Megatron().index(7, 4));
  refused("bad.bin", {"type 7"});
  folder.write("bad.idx", "MMIDIDX");
  refused("bad.bin", {"too short"});
  std::string huge = Megatron().index(8, 2);
  huge[25] = '\x7f';  // the number of sequences
  folder.write("bad.idx", huge);
  refused("bad.bin", {"truncated"});
  const std::string whole = Megatron().index(8, 2);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    folder.write("bad.idx", whole.substr(0, size));
    BOOST_CHECK_THROW(TokenFileReader(folder / "bad.bin"), DataError);
  }
  folder.write("bad.idx", whole);
  BOOST_CHECK_NO_THROW(TokenFileReader(folder / "bad.bin"));
  std::filesystem::remove(folder / "bad.bin");
  refused("bad.idx", {"No such file"});
}

BOOST_AUTO_TEST_CASE(llm_c_files) {
  const Tokens gpt2 = {50256, 1, 2, 50256, 3, 50256}, llama3 = {128000, 5, 128000, 128255};
  folder.write("gpt2.bin",
               padded(bytes_of<std::int32_t>(std::vector{20240520, 1, 6})) + bytes_of<std::uint16_t>(gpt2));
  folder.write("llama3.bin",
               padded(bytes_of<std::int32_t>(std::vector{20240801, 7, 4})) + bytes_of<std::uint32_t>(llama3));
  const TokenFileReader first(folder / "gpt2.bin"), second(folder / "llama3.bin");
  BOOST_TEST(all_tokens(first) == gpt2, equal);
  BOOST_TEST(first.documents() == (Offsets{0, 3, 5, 6}), equal);
  BOOST_TEST(all_tokens(second) == llama3, equal);
  BOOST_TEST(second.documents() == (Offsets{0, 2, 4}), equal);
  BOOST_TEST(second.info().vocabulary_size == 0);
  folder.write("none.bin", padded(bytes_of<std::int32_t>(std::vector{20240520, 1, 2})) +
                               bytes_of<std::uint16_t>(Tokens{7, 8}));
  BOOST_TEST(TokenFileReader(folder / "none.bin").documents() == (Offsets{0, 2}), equal);
  // More than a piece of reading.
  const Tokens many = counting(30'000, 20'000);
  folder.write("many.bin", padded(bytes_of<std::int32_t>(std::vector{20240520, 1, 30'000})) +
                               bytes_of<std::uint16_t>(many));
  BOOST_TEST(TokenFileReader(folder / "many.bin").documents() == (Offsets{0, 30'000}), equal);
  BOOST_TEST((all_tokens(TokenFileReader(folder / "many.bin")) == many));
}

BOOST_AUTO_TEST_CASE(llm_q_files) {
  const Tokens tokens = counting(11, 250);
  const auto header = [](std::vector<std::int32_t> values) {
    return padded("BIN.TOK\n" + bytes_of<std::int32_t>(values));
  };
  const std::string data = bytes_of<std::int32_t>(tokens);
  folder.write("plain.bin", header({1, 4, 11}) + data);
  const TokenFileReader plain(folder / "plain.bin");
  BOOST_TEST(all_tokens(plain) == tokens, equal);
  BOOST_TEST(plain.documents() == (Offsets{0, 11}), equal);
  BOOST_TEST(!plain.info().has_loss_mask);
  folder.write("masked.bin", header({2, 4, 11, 261, 1}) + data + "\x0d\x05");
  const TokenFileReader masked(folder / "masked.bin");
  BOOST_TEST(masked.info().vocabulary_size == 0);
  std::vector<std::uint8_t> mask(11);
  masked.read_loss_mask(0, mask);
  BOOST_TEST(mask == (std::vector<std::uint8_t>{1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1}), equal);
  mask.resize(2);
  masked.read_loss_mask(7, mask);
  BOOST_TEST(mask == (std::vector<std::uint8_t>{0, 1}), equal);
  // As tokenize_data.py writes it for Llama 3: the vocabulary without the added tokens.
  const Tokens llama3 = {128000, 1, 128009};
  folder.write("llama3.bin", header({2, 4, 3, 128000, 0}) + bytes_of<std::int32_t>(llama3));
  BOOST_TEST(all_tokens(TokenFileReader(folder / "llama3.bin")) == llama3, equal);
  folder.write("signed.bin", header({2, 4, 1, 128000, 0}) + one<std::int32_t>(-1));
  BOOST_CHECK_EXCEPTION(all_tokens(TokenFileReader(folder / "signed.bin")), DataError,
                        says({"token 0 is -1"}));
}

BOOST_AUTO_TEST_CASE(damaged_llm_files_are_refused) {
  const auto c = [](std::vector<std::int32_t> values, std::size_t bytes) {
    return padded(bytes_of<std::int32_t>(values)) + std::string(bytes, '\1');
  };
  const std::pair<std::string, std::string> damaged[] = {
      {c({20240520, 2, 4}, 8), "version 2"},
      {c({20240801, 1, 4}, 16), "version 1"},
      {c({20240520, 1, 4}, 7), "truncated"},
      {c({20240520, 1, 4}, 9), "damaged"},
      {c({20240520, 1, -1}, 0), "truncated"},
      {padded("BIN.TOK\n" + one<std::int32_t>(9)), "version 9"},
      {padded("BIN.TOK\n" + bytes_of<std::int32_t>(std::vector{2, 2, 0, 9, 0})), "2 bytes"},
      {padded("BIN.TOK\n" + bytes_of<std::int32_t>(std::vector{2, 4, 8, 9, 1})) + std::string(32, '\1'),
       "truncated"},
      {padded("once upon a time"), "not an HDF5 file"}};
  for (const auto& [bytes, reason] : damaged) {
    folder.write("bad.bin", bytes);
    refused("bad.bin", {reason});
  }
}

BOOST_AUTO_TEST_SUITE_END()
