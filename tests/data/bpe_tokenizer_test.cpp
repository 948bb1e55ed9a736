// A small tokenizer in every format, against what tiktoken and tokenizers make of the same texts.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <ctime>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/sha256.hpp"
#include "data/tokenizer/tokenizer.hpp"
#include "data/tokenizer/tokenizer_file.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using llama3d::test::says;
using llama3d::test::TemporaryFolder;

namespace {

using Ids = std::vector<std::uint32_t>;
const std::string samples = TOKENIZER_SAMPLES;

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Ids encoded(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options = {}) {
  Ids ids;
  tokenizer.encode(text, ids, options);
  return ids;
}

const nlohmann::json& golden() {
  static const nlohmann::json all = nlohmann::json::parse(content(samples + "/golden.json"));
  return all.at("cases");
}

Ids ids_of(const nlohmann::json& golden_case, const char* kind) {
  return golden_case.value(kind, golden_case.at("ids")).get<Ids>();
}

double seconds_to_encode(const Tokenizer& tokenizer, const std::string& text) {
  double best = 1e9;
  for (int turn = 0; turn < 3; ++turn) {
    const std::clock_t begin = std::clock();
    encoded(tokenizer, text);
    best = std::min(best, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  return best;
}

std::string repeated(std::string_view unit, std::size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(bpe_tokenizer)

BOOST_AUTO_TEST_CASE(every_format_gives_the_golden_tokens) {
  const std::pair<const char*, const char*> files[] = {
      {"tokenizer.model", "ids"}, {"pairs.json", "ids"}, {"strings.json", "merged"}};
  for (const auto& [file, kind] : files) {
    const auto tokenizer = make_tokenizer(samples + "/" + file);
    BOOST_TEST(tokenizer->vocabulary_size() == 1201 + 256);
    std::size_t differing = 0, sabotaged = 0;
    for (const auto& one : golden()) {
      const auto text = one.at("text").get<std::string>();
      const Ids ids = encoded(*tokenizer, text);
      differing += ids != ids_of(one, kind);
      sabotaged += encoded(*tokenizer, text + "x") != ids_of(one, kind);
      BOOST_TEST(tokenizer->decode(ids) == text);
    }
    BOOST_TEST(golden().size() > 500u);
    BOOST_TEST(differing == 0u, file);
    BOOST_TEST(sabotaged == golden().size(), file);
  }
}

BOOST_AUTO_TEST_CASE(special_tokens_are_text_unless_allowed) {
  for (const char* file : {"tokenizer.model", "pairs.json"}) {
    const auto tokenizer = make_tokenizer(samples + "/" + file);
    EncodeOptions allowed;
    allowed.special_tokens = true;
    std::size_t differing = 0;
    for (const auto& one : golden())
      differing += encoded(*tokenizer, one.at("text").get<std::string>(), allowed) != ids_of(one, "special");
    BOOST_TEST(differing == 0u, file);
    BOOST_TEST(tokenizer->begin_of_text() == 1201u);
    BOOST_TEST(tokenizer->end_of_text() == 1202u);
    BOOST_TEST(tokenizer->padding() == 1205u);
    BOOST_TEST(tokenizer->special_token("<|start_header_id|>").value() == 1207u);
    BOOST_TEST(tokenizer->special_token("<|end_header_id|>").value() == 1208u);
    BOOST_TEST(tokenizer->special_token("<|eot_id|>").value() == 1210u);
    BOOST_TEST(tokenizer->special_token("<|reserved_special_token_250|>").value() == 1456u);
    BOOST_TEST(!tokenizer->special_token("<|reserved_special_token_251|>"));
    BOOST_TEST(tokenizer->decode(Ids{1201, 65, 1210, 5000}) == tokenizer->decode(Ids{65}));
  }
  // Names of Llama 3.1, whose file has the same ranks.
  const auto tokenizer = make_tokenizer(samples + "/tokenizer.model");
  BOOST_TEST(tokenizer->special_token("<|finetune_right_pad_id|>").value() == 1205u);
  BOOST_TEST(tokenizer->special_token("<|eom_id|>").value() == 1209u);
  BOOST_TEST(tokenizer->special_token("<|python_tag|>").value() == 1211u);
}

BOOST_AUTO_TEST_CASE(cutting_where_it_is_allowed_changes_nothing) {
  const auto tokenizer = make_tokenizer(samples + "/tokenizer.model");
  std::size_t cuts = 0, differing = 0, differing_elsewhere = 0;
  for (const auto& one : golden()) {
    const auto text = one.at("text").get<std::string>();
    const Ids whole = ids_of(one, "ids");
    // With any end, in the middle of a character too: what follows must not matter.
    for (std::size_t seen = 1; seen <= text.size(); ++seen) {
      const std::size_t place = tokenizer->last_cut(std::string_view(text).substr(0, seen));
      BOOST_REQUIRE(place < seen);
      if (place == 0) continue;
      Ids parts = encoded(*tokenizer, text.substr(0, place));
      tokenizer->encode(text.substr(place), parts);
      ++cuts;
      differing += parts != whole;
      if ((text[place] & 0x80) || (text[place + 1] & 0x80)) continue;
      parts = encoded(*tokenizer, text.substr(0, place + 1));
      tokenizer->encode(text.substr(place + 1), parts);
      differing_elsewhere += parts != whole;
    }
  }
  BOOST_TEST(cuts > 10'000u);
  BOOST_TEST(differing == 0u);
  BOOST_TEST(differing_elsewhere > 100u);
}

BOOST_AUTO_TEST_CASE(invalid_utf8_is_refused_or_replaced) {
  const auto tokenizer = make_tokenizer(samples + "/tokenizer.model");
  const auto replaced = [&](std::string_view text) {
    return tokenizer->decode(encoded(*tokenizer, text, {false, InvalidUtf8::replace}));
  };
  const std::string r = "\xEF\xBF\xBD";
  // Python's bytes.decode("utf-8", "replace") of each.
  const std::pair<std::string, std::string> cases[] = {
      {"a\xFFz", "a" + r + "z"},
      {"\x80\x80", r + r},
      {"\xC3", r},
      {"\xC0\xAF", r + r},
      {"\xE0\x80\x80", r + r + r},
      {"\xE4\xB8", r},
      {"\xE4\xB8x", r + "x"},
      {"\xED\xA0\x80", r + r + r},
      {"\xF0\x9F\x98", r},
      {"\xF0\x9F\x98\xC3\xA9", r + "\xC3\xA9"},
      {"\xF4\x90\x80\x80", r + r + r + r},
      {"\xF8\x88\x80\x80\x80", r + r + r + r + r},
      {"12345678\xE4\xB8\xAD\xF0\x9F\x98\x80 fine", "12345678\xE4\xB8\xAD\xF0\x9F\x98\x80 fine"}};
  for (const auto& [text, expected] : cases) BOOST_TEST(replaced(text) == expected);
  BOOST_CHECK_EXCEPTION(encoded(*tokenizer, "12345678\xC3\xA9\xE4\xB8!"), DataError,
                        says({"0xE4", "offset 10"}));
}

// Four times the text in about four times the time: quadratic would be sixteen.
BOOST_AUTO_TEST_CASE(a_transcript_names_special_tokens) {
  const auto tokenizer = make_tokenizer(samples + "/tokenizer.model");
  const std::string text = "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>";
  const Ids ids = encoded(*tokenizer, text, {.special_tokens = true});
  BOOST_TEST(tokenizer->transcript(ids) == text);
  BOOST_TEST(tokenizer->decode(ids) == "user\n\nHi");
}

BOOST_AUTO_TEST_CASE(long_runs_take_linear_time) {
  const auto tokenizer = make_tokenizer(samples + "/tokenizer.model");
  for (const char* unit :
       {" ", "\n", " \n", "\r\n", "a", "the", "7", "!", "'", "\xE4\xB8\xAD", "\xCC\x81", "x ", "=\n "}) {
    const std::string text = repeated(unit, 400'000), longer = repeated(unit, 1'600'000);
    BOOST_TEST(tokenizer->decode(encoded(*tokenizer, text)) == text);
    const double once = seconds_to_encode(*tokenizer, text), four = seconds_to_encode(*tokenizer, longer);
    BOOST_TEST(four < 9 * once + 0.02, "four times \"" << unit << "\": " << once << " s, " << four << " s");
  }
}

BOOST_AUTO_TEST_CASE(a_folder_or_a_file_of_any_name_works) {
  const TemporaryFolder folder;
  folder.write("a/tokenizer.model", content(samples + "/tokenizer.model"));
  folder.write("b/tokenizer.json", content(samples + "/pairs.json"));
  folder.write("b/tokenizer.model", "not looked at");
  folder.write("c/ranks.json", content(samples + "/tokenizer.model"));
  const Ids expected = encoded(*make_tokenizer(samples + "/tokenizer.model"), "It is a truth");
  for (const char* name : {"a", "b", "c/ranks.json"})
    BOOST_TEST(encoded(*make_tokenizer(folder / name), "It is a truth") == expected);
  const auto tokenizer = make_tokenizer(folder / "b");
  BOOST_TEST(tokenizer->name() == "tokenizer.json");
  BOOST_TEST(tokenizer->file_hash() == sha256(content(samples + "/pairs.json")));
}

BOOST_AUTO_TEST_CASE(another_number_of_ranks_than_llama_3s_is_doubtful) {
  BOOST_TEST(make_tokenizer(samples + "/tokenizer.model")->doubt() ==
             "it has 1201 ranks, where Llama 3's has 128000: cut short?");
  BOOST_TEST(make_tokenizer(samples + "/pairs.json")->doubt().empty());
  // The bytes, all pairs of them, and some with a third.
  const auto token = [](unsigned rank) {
    std::vector<unsigned> bytes = {rank};
    if (rank >= 256) bytes = {(rank - 256) / 256 % 256, rank % 256};
    if (rank >= 256 + 65536) bytes.push_back(0);
    return bytes;
  };
  const auto base64 = [](const std::vector<unsigned>& bytes) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned bits = 0;
    for (std::size_t i = 0; i < 3; ++i) bits = bits << 8 | (i < bytes.size() ? bytes[i] : 0);
    std::string text;
    for (const int shift : {18, 12, 6, 0}) text += digits[bits >> shift & 63];
    for (std::size_t i = bytes.size(); i < 3; ++i) text[i + 1] = '=';
    return text;
  };
  std::string whole;
  for (unsigned rank = 0; rank < 128'000; ++rank)
    whole += base64(token(rank)) + ' ' + std::to_string(rank) + '\n';
  const TemporaryFolder folder;
  BOOST_TEST(make_tokenizer(folder.write("whole.model", whole))->doubt().empty());
  whole.resize(whole.rfind('\n', whole.size() - 2) + 1);
  BOOST_TEST(make_tokenizer(folder.write("cut.model", whole))->doubt() ==
             "it has 127999 ranks, where Llama 3's has 128000: cut short?");
}

BOOST_AUTO_TEST_CASE(damaged_and_foreign_files_are_refused) {
  const TemporaryFolder folder;
  const auto refused = [&](std::string_view text, std::initializer_list<std::string> words) {
    const auto path = folder.write("given", text);
    std::vector<std::string> all(words);
    BOOST_CHECK_EXCEPTION(make_tokenizer(path), DataError, says({path.string(), "cannot be used"}));
    for (const std::string& word : all) BOOST_CHECK_EXCEPTION(make_tokenizer(path), DataError, says({word}));
  };
  const std::string model = content(samples + "/tokenizer.model");
  refused("", {"empty"});
  refused("hello\n", {"line 1", "\"hello\""});
  refused(std::string("\x0A\x0E\x0A\x05\x00\x01", 6), {"binary", "Llama 2"});
  refused(model.substr(0, 1000), {"line"});
  refused(model.substr(0, model.find(" 200\n") + 5), {"is no token: cut short?"});
  refused(model.substr(0, model.find(" 700\n") + 4) + "x\n", {"line 701"});
  refused(model.substr(model.find('\n') + 1), {"line 1 has rank 1, not 0"});
  refused(model + "IA== 1201\n", {"ranks 32 and 1201"});
  refused(model + "IA= 1201\n", {"line 1202"});
  refused(model + "IA== -1\n", {"line 1202"});
  const std::string text = content(samples + "/pairs.json");
  refused(text.substr(0, text.size() / 2), {"no valid JSON"});
  refused("{}", {"no tokenizer"});
  const auto changed = [&](const std::function<void(nlohmann::json&)>& change, std::string word) {
    nlohmann::json root = nlohmann::json::parse(text);
    change(root);
    refused(root.dump(), {std::move(word)});
  };
  using Json = nlohmann::json;
  changed([](Json& j) { j["model"]["type"] = "Unigram"; }, "not a BPE");
  changed([](Json& j) { j["model"]["byte_fallback"] = true; }, "falls back");
  changed([](Json& j) { j["model"]["dropout"] = 0.1; }, "dropout");
  changed([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, "end_of_word_suffix");
  changed([](Json& j) { j["model"]["vocab"]["A"] = 66; }, "two tokens have the id 66");
  changed([](Json& j) { j["model"]["vocab"]["A"] = -1; }, "the id of \"A\" is -1");
  changed([](Json& j) { j["model"]["vocab"]["A"] = 4'000'000'000u; }, "4000000000");
  changed([](Json& j) { j["model"]["vocab"].erase("A"); }, "0x41");
  changed([](Json& j) { j["model"]["vocab"]["\xE4\xB8\xAD"] = 1300; }, "not spelled in bytes");
  changed([](Json& j) { j["model"]["vocab"] = nullptr; }, "no vocabulary");
  changed([](Json& j) { j["model"]["merges"] = nullptr; }, "no merges");
  changed([](Json& j) { j["model"]["merges"][3] = "abc"; }, "merge 3");
  changed([](Json& j) { j["model"]["merges"][3] = {"a", "b", "c"}; }, "merge 3");
  changed([](Json& j) { j["model"]["merges"][3] = {"q", "q"}; }, "merge 3");
  changed([](Json& j) { j["normalizer"] = {{"type", "NFC"}}; }, "normalizer");
  changed([](Json& j) { j["pre_tokenizer"] = nullptr; }, "pre-tokenizer");
  changed([](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\p{L}+"; },
          "expression");
  changed([](Json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; },
          "byte-level step");
  changed([](Json& j) { j["added_tokens"][7]["special"] = false; }, "added token 1208 is not special");
  changed([](Json& j) { j["added_tokens"][7]["lstrip"] = true; }, "lstrip");
  changed([](Json& j) { j["added_tokens"][7]["id"] = 65; }, "id of another token");
  changed([](Json& j) { j["added_tokens"].erase(0); }, "<|begin_of_text|>");
  std::filesystem::create_directory(folder / "empty");
  BOOST_CHECK_EXCEPTION(make_tokenizer(folder / "empty"), DataError, says({"empty", "no tokenizer"}));
}

BOOST_AUTO_TEST_CASE(sha256_of_known_texts) {
  // FIPS 180-4's examples, and lengths around a block's end as sha256sum has them.
  BOOST_TEST(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  BOOST_TEST(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  BOOST_TEST(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
             "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  BOOST_TEST(sha256(std::string(55, 'a')) ==
             "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  BOOST_TEST(sha256(std::string(64, 'a')) ==
             "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}

BOOST_AUTO_TEST_SUITE_END()
