// Outcome of every call that can fail; nothing is thrown across the native API.
#pragma once

#include <string>
#include <utility>

namespace duologue {

enum class StatusCode { kOk, kConfig, kWeights, kStream, kAudio };

struct Status {
  StatusCode code = StatusCode::kOk;
  std::string message;

  bool ok() const { return code == StatusCode::kOk; }
  static Status config(std::string text) { return {StatusCode::kConfig, std::move(text)}; }
  static Status weights(std::string text) { return {StatusCode::kWeights, std::move(text)}; }
  static Status stream(std::string text) { return {StatusCode::kStream, std::move(text)}; }
  static Status audio(std::string text) { return {StatusCode::kAudio, std::move(text)}; }
};

}  // namespace duologue
