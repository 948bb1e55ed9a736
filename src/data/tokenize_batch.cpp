#include "data/tokenize_batch.hpp"

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "base/utf8.hpp"

namespace llama3d {
namespace {

/// Has invalid UTF-8 replaced, or throws.
void check_utf8(const std::filesystem::path& path, RawText& raw, InvalidUtf8 choice) {
  std::string& text = raw.text;
  const std::size_t bad = find_invalid_utf8(text);
  if (bad == std::string::npos) return;
  if (choice == InvalidUtf8::error) {
    const auto line =
        raw.line + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bad), '\n');
    throw DataError(
        fmt::format("{}:{} is no valid UTF-8 (byte 0x{:02X} at offset {} of the file); convert the file, or "
                    "have such bytes replaced with `invalid_utf8` replace",
                    path.string(), line, static_cast<unsigned char>(text[bad]),
                    raw.offset + static_cast<std::int64_t>(bad)));
  }
  text = replace_invalid_utf8(text);
}

class BatchEncoder {
 public:
  BatchEncoder(std::span<const InputFile> files, const Tokenizer& tokenizer, const TokenizeOptions& options,
               bool loss_mask)
      : files_(files), tokenizer_(tokenizer), options_(options), loss_mask_(loss_mask) {}

  void add(RawPiece& piece) {
    const auto& [path, format] = files_[piece.file];
    RawText& raw = piece.raw;
    if (format != InputFormat::text || tokenizer_.needs_utf8()) check_utf8(path, raw, options_.invalid_utf8);
    EncodedPiece result{.file = piece.file,
                        .end = 0,
                        .ends_document = raw.ends_document,
                        .line = raw.line,
                        .record = raw.record};
    try {
      if (holds_conversations(format))
        add_conversation(parse_conversation(raw.text, format), result);
      else if (format == InputFormat::text)
        add_text(raw.text, raw, result);
      else
        add_text(parse_text_record(raw.text, options_.text_field), raw, result);
    } catch (const BadRecord& bad) {
      result.bad = bad.what();
      end(result);
    }
  }
  void reserve(std::size_t tokens) { batch_.tokens.reserve(tokens); }
  EncodedBatch take() { return std::move(batch_); }

 private:
  void add_text(const std::string& text, const RawText& raw, EncodedPiece& result) {
    if (raw.begins_document && raw.ends_document && is_blank(text)) {
      ++batch_.empty_documents;
      return;
    }
    if (raw.begins_document) batch_.tokens.push_back(tokenizer_.begin_of_text());
    tokenizer_.encode(text, batch_.tokens);
    if (raw.ends_document) batch_.tokens.push_back(tokenizer_.end_of_text());
    if (loss_mask_) batch_.learn.resize(batch_.tokens.size(), 1);
    end(result);
  }

  void add_conversation(const Conversation& conversation, EncodedPiece& result) {
    const RenderedChat chat =
        render_chat_for_training(conversation, tokenizer_, options_.cutoff, options_.loss_on);
    batch_.tokens.insert(batch_.tokens.end(), chat.tokens.begin(), chat.tokens.end());
    batch_.learn.insert(batch_.learn.end(), chat.learn.begin(), chat.learn.end());
    result.truncated = chat.truncated;
    end(result);
  }

  void end(EncodedPiece& result) {
    result.end = batch_.tokens.size();
    batch_.pieces.push_back(std::move(result));
  }

  std::span<const InputFile> files_;
  const Tokenizer& tokenizer_;
  const TokenizeOptions& options_;
  bool loss_mask_;
  EncodedBatch batch_;
};

}  // namespace

EncodedBatch encode(RawBatch batch, std::span<const InputFile> files, const Tokenizer& tokenizer,
                    const TokenizeOptions& options, bool loss_mask) {
  BatchEncoder encoder(files, tokenizer, options, loss_mask);
  encoder.reserve(batch.bytes / 3);
  for (RawPiece& piece : batch.pieces) encoder.add(piece);
  return encoder.take();
}

}  // namespace llama3d
