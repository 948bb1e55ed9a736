#include "data/tokenizer/byte_pairs.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <utility>

#include "base/error.hpp"

namespace llama3d {
namespace {

constexpr std::uint32_t none = TokenIndex::none;
/// Pieces up to this many bytes are merged by looking for the best pair each time: no heap to keep.
constexpr std::size_t short_piece = 48;
/// Odd, and without a pattern: 2^64 divided by the golden ratio.
constexpr std::uint64_t scatter = 0x9E3779B97F4A7C15;

std::uint64_t hash(std::uint64_t key, std::uint64_t more = 0) {
  key = (key ^ more) * scatter;
  return (key ^ key >> 32) * scatter;
}

/// At most half of the places are taken.
std::size_t places_for(std::size_t entries) {
  return std::bit_ceil(std::max<std::size_t>(2 * entries, 2));
}

/// How far the hash goes down to be a place.
int shift_for(std::size_t places) {
  return 64 - std::countr_zero(places);
}

std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) {
  return std::uint64_t{left} << 32 | right;
}

}  // namespace

TokenIndex::TokenIndex(const std::vector<std::string>& tokens)
    : tokens_(tokens), slots_(places_for(tokens.size())), shift_(shift_for(slots_.size())) {
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty()) continue;
    Slot& slot = slots_[place_of(tokens[id])];
    if (slot.id == none)
      slot = {key_of(tokens[id]), static_cast<std::uint32_t>(id),
              static_cast<std::uint32_t>(tokens[id].size())};
  }
}

std::uint64_t TokenIndex::key_of(std::string_view token) {
  std::uint64_t key = 0;
  if (token.size() <= sizeof key) {
    std::memcpy(&key, token.data(), token.size());
    return key;
  }
  std::uint64_t mixed = token.size();
  for (std::size_t i = 0; i + sizeof key <= token.size(); i += sizeof key) {
    std::memcpy(&key, token.data() + i, sizeof key);
    mixed = hash(mixed, key);
  }
  std::memcpy(&key, token.data() + token.size() - sizeof key, sizeof key);
  return hash(mixed, key);
}

std::size_t TokenIndex::place_of(std::string_view token) const {
  const std::uint64_t key = key_of(token);
  std::size_t place = hash(key, token.size()) >> shift_;
  for (; slots_[place].id != none; place = (place + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[place];
    if (slot.key != key || slot.length != token.size()) continue;
    if (token.size() <= sizeof key || tokens_[slot.id] == token) break;
  }
  return place;
}

std::uint32_t TokenIndex::find(std::string_view token) const {
  return slots_[place_of(token)].id;
}

int missing_byte(const TokenIndex& index) {
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(static_cast<unsigned char>(byte));
    if (index.find({&text, 1}) == none) return byte;
  }
  return -1;
}

std::vector<Merge> merges_by_id(const std::vector<std::string>& tokens) {
  const TokenIndex index(tokens);
  std::vector<Merge> merges;
  merges.reserve(3 * tokens.size());
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      const std::uint32_t left = index.find(token.substr(0, cut));
      if (left == none) continue;
      const std::uint32_t right = index.find(token.substr(cut));
      if (right == none) continue;
      merges.push_back({left, right, static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id)});
    }
  }
  return merges;
}

BytePairs::BytePairs(Vocabulary vocabulary)
    : vocabulary_(std::move(vocabulary)),
      index_(vocabulary_.tokens),
      bytes_(256),
      pairs_(places_for(vocabulary_.merges.size())),
      pair_shift_(shift_for(pairs_.size())),
      byte_pairs_(std::size_t{1} << 16) {
  LLAMA3D_EXPECT(missing_byte(index_) < 0, "byte {} is no token", missing_byte(index_));
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(static_cast<unsigned char>(byte));
    bytes_[byte] = index_.find({&text, 1});
  }
  for (const Merge& merge : vocabulary_.merges) {
    const std::uint64_t key = pair_key(merge.left, merge.right);
    slot(key) = {key, merge.rank, merge.merged};
  }
  vocabulary_.merges = {};
  for (std::size_t left = 0; left < 256; ++left)
    for (std::size_t right = 0; right < 256; ++right)
      byte_pairs_[left << 8 | right] = find(bytes_[left], bytes_[right]);
}

BytePairs::Pair& BytePairs::slot(std::uint64_t key) {
  std::size_t place = hash(key) >> pair_shift_;
  while (pairs_[place].key != key && pairs_[place].key != Pair{}.key)
    place = (place + 1) & (pairs_.size() - 1);
  return pairs_[place];
}

const BytePairs::Pair& BytePairs::find(std::uint32_t left, std::uint32_t right) const {
  static constexpr Pair no_merge{~std::uint64_t{0}, none, none};
  const std::uint64_t key = pair_key(left, right);
  for (std::size_t place = hash(key) >> pair_shift_;; place = (place + 1) & (pairs_.size() - 1)) {
    if (pairs_[place].key == key) return pairs_[place];
    if (pairs_[place].key == no_merge.key) return no_merge;
  }
}

void BytePairs::encode(std::string_view piece, std::vector<std::uint32_t>& tokens) const {
  if (piece.size() == 1) {
    tokens.push_back(bytes_[static_cast<unsigned char>(piece.front())]);
    return;
  }
  if (vocabulary_.whole_pieces_first) {
    if (const std::uint32_t whole = index_.find(piece); whole != none) {
      tokens.push_back(whole);
      return;
    }
  }
  if (piece.size() <= short_piece)
    encode_short(piece, tokens);
  else
    encode_long(piece, tokens);
}

void BytePairs::encode_short(std::string_view piece, std::vector<std::uint32_t>& tokens) const {
  struct Part {
    std::uint32_t id;
    std::uint32_t rank, merged;  ///< with the part to the right
  };
  std::array<Part, short_piece> parts;
  std::size_t count = piece.size();
  const auto byte = [&](std::size_t i) { return std::size_t{static_cast<unsigned char>(piece[i])}; };
  for (std::size_t i = 0; i + 1 < count; ++i) {
    const Pair& pair = byte_pairs_[byte(i) << 8 | byte(i + 1)];
    parts[i] = {bytes_[byte(i)], pair.rank, pair.merged};
  }
  parts[count - 1] = {bytes_[byte(count - 1)], none, none};
  const auto meet = [&](std::size_t i) {
    const Pair& pair = find(parts[i].id, parts[i + 1].id);
    parts[i].rank = pair.rank;
    parts[i].merged = pair.merged;
  };
  for (;;) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < count; ++i)
      if (parts[i].rank < parts[best].rank) best = i;
    if (parts[best].rank == none) break;
    parts[best].id = parts[best].merged;
    std::copy(parts.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              parts.begin() + static_cast<std::ptrdiff_t>(count),
              parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    --count;
    if (best + 1 < count)
      meet(best);
    else
      parts[best].rank = none;
    if (best > 0) meet(best - 1);
  }
  for (std::size_t i = 0; i < count; ++i) tokens.push_back(parts[i].id);
}

void BytePairs::encode_long(std::string_view piece, std::vector<std::uint32_t>& tokens) const {
  LLAMA3D_EXPECT(piece.size() < none, "a piece of {} bytes", piece.size());
  struct Part {
    std::uint32_t id, previous, next;
    std::uint32_t rank;  ///< with the part to the right; none for a part that is gone
  };
  const auto size = static_cast<std::uint32_t>(piece.size());
  std::vector<Part> parts(size);
  // Smallest first: rank in the upper half, place in the lower. What has changed since is passed over.
  std::vector<std::uint64_t> heap;
  heap.reserve(size);
  const auto byte = [&](std::uint32_t i) { return std::size_t{static_cast<unsigned char>(piece[i])}; };
  for (std::uint32_t i = 0; i < size; ++i) {
    const std::uint32_t rank = i + 1 < size ? byte_pairs_[byte(i) << 8 | byte(i + 1)].rank : none;
    parts[i] = {bytes_[byte(i)], i - 1, i + 1, rank};
    if (rank != none) heap.push_back(pair_key(rank, i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater());
  const auto meet = [&](std::uint32_t i) {
    Part& part = parts[i];
    part.rank = part.next < size ? find(part.id, parts[part.next].id).rank : none;
    if (part.rank == none) return;
    heap.push_back(pair_key(part.rank, i));
    std::push_heap(heap.begin(), heap.end(), std::greater());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater());
    const auto rank = static_cast<std::uint32_t>(heap.back() >> 32);
    const auto place = static_cast<std::uint32_t>(heap.back());
    heap.pop_back();
    Part& part = parts[place];
    if (part.rank != rank) continue;
    const std::uint32_t gone = part.next;
    part.id = find(part.id, parts[gone].id).merged;
    part.next = parts[gone].next;
    parts[gone].rank = none;
    if (part.next < size) parts[part.next].previous = place;
    meet(place);
    if (place > 0) meet(part.previous);
  }
  for (std::uint32_t i = 0; i < size; i = parts[i].next) tokens.push_back(parts[i].id);
}

}  // namespace llama3d
