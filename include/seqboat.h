#ifndef SEQBOAT_H_
#define SEQBOAT_H_

/// libseqboat for C: trained models as streams in constant memory, or on whole sequences. C99 and later, C++11 and later. What the models are:
/// README.md; how to link: docs/EMBEDDING.md; the same for C++, with spans and exceptions: seqboat/runtime/*.h.
///
///   seqboat_model    weights, immutable: shared by any number of threads, states and runners
///   seqboat_state    what one stream has left behind so far: a value that can be cloned, saved and loaded; used by one thread at a time
///   seqboat_runner   workspace and threads that move states on; used by one thread at a time, which feeds any number of streams in one call
///   seqboat_sampler  how the next token is chosen from a model's logits
///
/// A complete program: the bytes of the standard input go through a language model of bytes, and the byte that it expects next is printed.
///
///   #include <seqboat.h>
///   #include <stdio.h>
///
///   int main(int argc, char** argv) {
///     seqboat_model* model = NULL;
///     seqboat_state* state = NULL;
///     seqboat_runner* runner = NULL;
///     if (argc != 2 || seqboat_model_load(argv[1], NULL, &model) != SEQBOAT_OK || seqboat_state_create(model, NULL, &state) != SEQBOAT_OK ||
///         seqboat_runner_create(model, NULL, &runner) != SEQBOAT_OK) {
///       fprintf(stderr, "%s\n", argc != 2 ? "usage: expect MODEL_FOLDER" : seqboat_error_message());
///       return 1;
///     }
///     float logits[256];
///     int64_t token;
///     seqboat_feed feed = {.size = sizeof feed, .state = state, .tokens = &token, .count = 1, .logits = logits, .logits_count = 256};
///     for (int c = getchar(); c != EOF; c = getchar()) {
///       token = c;
///       if (seqboat_runner_feed(runner, &feed, 1) != SEQBOAT_OK) {
///         fprintf(stderr, "%s\n", seqboat_error_message());
///         return 1;
///       }
///     }
///     int best = 0;
///     for (int i = 1; i < 256; ++i) best = logits[i] > logits[best] ? i : best;
///     printf("after %lld bytes: %d\n", (long long)seqboat_state_tokens(state), best);
///     seqboat_runner_free(runner);
///     seqboat_state_free(state);
///     seqboat_model_free(model);
///     return 0;
///   }
///
/// Rules that hold for everything below
/// - Errors. A function that can fail returns a seqboat_status; seqboat_error_message() says what, where, what was expected and what was found. No
///   exception leaves the library, not for want of memory either. A call that fails changes nothing, and sets its out-parameter, if it has one, to
///   NULL. A NULL for a handle, a path or an out-parameter is SEQBOAT_ERROR_USAGE; freeing NULL does nothing.
/// - Structs begin with their own `size`: set it to sizeof of the struct, and what you do not name to zero (an initialiser with names does). A number
///   that is 0 and a pointer that is NULL mean the default or "none". Later versions add fields at the end: a program that was built with an older
///   header goes on working, and a newer program's field that this library does not know is an error unless it is zero. Options may be NULL as a
///   whole.
/// - Ownership. Handles are the caller's, who gives each back to its _free function once, in any order: states and runners keep alive what they
///   need of their model. Memory and arrays that are passed in stay the caller's; arrays are read and written during the call only.
/// - Threads. A model may be used by all at once. Different states, runners and samplers are independent of each other. Two threads may not use one
///   of them at the same time; they may do so one after the other.
/// - Allocation. seqboat_runner_feed() and seqboat_sampler_sample() allocate nothing unless they fail; neither do seqboat_state_copy(),
///   seqboat_state_reset() and reads of facts.
/// - Results. A stream gives the same bits whole, in any pieces, token by token, alone or beside others, and with any number of threads, on one
///   kind of processor (seqboat_simd_target()).
/// - Text is UTF-8, paths are as the system takes them, sizes are in bytes unless said otherwise, arrays are dense and row-major.

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) || defined(__clang__)
#define SEQBOAT_API __attribute__((visibility("default")))
#else
#define SEQBOAT_API
#endif

// Of an enum: in C any number may stand in one; in C++ too, if its type is given.
#ifdef __cplusplus
#define SEQBOAT_AS_INT : int
#else
#define SEQBOAT_AS_INT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/// Memory that the caller provides begins at a multiple of this.
#define SEQBOAT_ALIGNMENT 64

/// "MAJOR.MINOR.PATCH" of the library that runs. Programs built against an older one of the same MAJOR.MINOR run with it.
SEQBOAT_API const char* seqboat_version(void);
/// The vector instructions in use: "avx3" (AVX-512), "avx2", "sse4", "neon", "scalar", ... Chosen for the processor when first needed.
SEQBOAT_API const char* seqboat_simd_target(void);

// --- Errors ---------------------------------------------------------------------------------------------------------------------------------------

/// The numbers are the exit codes of the program `seqboat`.
typedef enum seqboat_status SEQBOAT_AS_INT {
  SEQBOAT_OK = 0,
  SEQBOAT_ERROR_FAILED = 1,    ///< failed while running, reading or writing a file for instance
  SEQBOAT_ERROR_USAGE = 2,     ///< a call that cannot be right: NULL, an option out of range, memory or an array that is too small
  SEQBOAT_ERROR_CONFIG = 3,    ///< a config that no model can be built from
  SEQBOAT_ERROR_DATA = 4,      ///< a token or number that is out of range or not finite, more tokens than max_context
  SEQBOAT_ERROR_MODEL = 5,     ///< a model or state file that is damaged or does not fit, a state of another model
  SEQBOAT_ERROR_DIVERGED = 6,  ///< logits that are no numbers, given to a sampler
  SEQBOAT_ERROR_RESOURCE = 7,  ///< out of memory, disk or threads
} seqboat_status;

/// What went wrong in the last call of this thread that failed, in one line: valid until the next one that fails. "" before the first. Never NULL.
SEQBOAT_API const char* seqboat_error_message(void);
/// "ok", "failed", "usage", "config", "data", "model", "diverged", "resource"; "unknown" for any other number.
SEQBOAT_API const char* seqboat_status_name(seqboat_status status);

// --- Models ---------------------------------------------------------------------------------------------------------------------------------------

typedef struct seqboat_model seqboat_model;

/// What numbers are stored in. Arithmetic is float32 throughout.
typedef enum seqboat_precision SEQBOAT_AS_INT {
  SEQBOAT_FLOAT32 = 0,
  SEQBOAT_BF16 = 1,
  SEQBOAT_INT8 = 2,  ///< weights only: integers of -127 .. 127 with a float32 scale a row
} seqboat_precision;

typedef struct seqboat_load_options {
  size_t size;
  seqboat_precision ring;  ///< of the keys and values that streams keep: SEQBOAT_FLOAT32 | SEQBOAT_BF16 (half the memory)
} seqboat_load_options;

/// The model of a folder, config.json + model.safetensors, as `seqboat train` exports it or seqboat_quantize() writes it. The file is mapped into
/// memory and must stay as it is until the model is gone. SEQBOAT_ERROR_MODEL names the file and the tensor that is missing, unknown, or of another
/// shape.
SEQBOAT_API seqboat_status seqboat_model_load(const char* folder, const seqboat_load_options* options, seqboat_model** model);

/// A model of random numbers, to measure with: the same config (the text of a config.json), seed and precision give the same model on every machine.
SEQBOAT_API seqboat_status seqboat_model_random(const char* config_json, uint64_t seed, seqboat_precision weights,
                                                const seqboat_load_options* options, seqboat_model** model);

SEQBOAT_API void seqboat_model_free(seqboat_model* model);

/// Writes the float32 model of one folder to another with its matrices as SEQBOAT_BF16 or SEQBOAT_INT8. folder_out must not be there yet, or be
/// empty; it appears whole or not at all.
SEQBOAT_API seqboat_status seqboat_quantize(const char* folder_in, const char* folder_out, seqboat_precision weights);

/// Facts of a model. Texts belong to the model and live as long as its handle.
typedef struct seqboat_model_info {
  size_t size;                ///< set by the caller, kept
  const char* task;           ///< "language-model" | "classification" | "retrieval"
  int64_t vocab;              ///< tokens are integers in [0, vocab); 0: the model reads numbers
  int64_t channels;           ///< numbers of a step; 0: the model reads tokens
  int64_t outputs;            ///< numbers that a head gives: vocab of a language model, else classes
  int64_t layers;             ///< of what per-layer arrays have
  int can_stream;             ///< 1: states can be made of it; 0: whole sequences only
  const char* why_not;        ///< why it cannot stream, in a sentence; "" where it can
  int needs_max_context;      ///< 1: some layer attends without an end, and states and runners need a max_context
  int64_t state_bytes;        ///< of one stream; 0 where it cannot stream or needs a max_context: see seqboat_state_bytes()
  int64_t workspace_bytes;    ///< of a runner with default options; likewise, see seqboat_runner_bytes()
  int64_t parameters;         ///< trainable numbers
  int64_t weight_bytes;       ///< held in memory
  int64_t mapped_bytes;       ///< of the file, which stays mapped
  seqboat_precision weights;  ///< the coarsest that any of its matrices has
  seqboat_precision ring;
  const char* fingerprint;  ///< 32 hexadecimal digits: of the config and of every weight
  const char* config_json;  ///< the whole config (docs/CONFIG.md)
} seqboat_model_info;

/// Fills as much of *info as info->size says.
SEQBOAT_API seqboat_status seqboat_model_get_info(const seqboat_model* model, seqboat_model_info* info);

// --- States ---------------------------------------------------------------------------------------------------------------------------------------

typedef struct seqboat_state seqboat_state;

typedef struct seqboat_state_options {
  size_t size;
  int64_t max_context;  ///< tokens that the stream may have, where the model needs one; other models' states have one size for ever
  void* memory;         ///< where the state is to live, the caller's until the handle is freed; NULL: allocated
  size_t memory_bytes;  ///< at least seqboat_state_bytes()
  uint64_t seed;        ///< hash keys of layers that choose at random; others do not look at them
  int64_t sequence_id;
} seqboat_state_options;

/// The bytes of one state of the model (its handle, some hundred bytes a layer, apart).
SEQBOAT_API seqboat_status seqboat_state_bytes(const seqboat_model* model, const seqboat_state_options* options, int64_t* bytes);

/// A stream before its first token.
SEQBOAT_API seqboat_status seqboat_state_create(const seqboat_model* model, const seqboat_state_options* options, seqboat_state** state);
SEQBOAT_API void seqboat_state_free(seqboat_state* state);

/// An independent copy, in the caller's memory or, with memory NULL, in its own.
SEQBOAT_API seqboat_status seqboat_state_clone(const seqboat_state* state, void* memory, size_t memory_bytes, seqboat_state** copy);
/// `to` takes over what `from` holds, without allocating: both of the same model and max_context, else SEQBOAT_ERROR_MODEL.
SEQBOAT_API seqboat_status seqboat_state_copy(seqboat_state* to, const seqboat_state* from);
/// Before the first token again.
SEQBOAT_API seqboat_status seqboat_state_reset(seqboat_state* state);

/// Writes a safetensors file, whole or not at all. Another process, kind of processor or later version of the library can load it.
SEQBOAT_API seqboat_status seqboat_state_save(const seqboat_state* state, const char* file);
/// SEQBOAT_ERROR_MODEL names the file and says what is wrong: damaged, no state, another model's or another ring's.
SEQBOAT_API seqboat_status seqboat_state_load(const seqboat_model* model, const char* file, void* memory, size_t memory_bytes, seqboat_state** state);

/// Tokens (steps) fed so far; -1 for NULL.
SEQBOAT_API int64_t seqboat_state_tokens(const seqboat_state* state);
/// Bytes that it takes; -1 for NULL.
SEQBOAT_API int64_t seqboat_state_size(const seqboat_state* state);
/// Tokens that the stream may have; 0: without an end; -1 for NULL. A runner that feeds it needs at least that max_context.
SEQBOAT_API int64_t seqboat_state_max_context(const seqboat_state* state);
/// Tokens that a layer has activated so far: all of them where everything attends, 0 where nothing does.
SEQBOAT_API seqboat_status seqboat_state_activated(const seqboat_state* state, int64_t layer, int64_t* tokens);

// --- Streams --------------------------------------------------------------------------------------------------------------------------------------

typedef struct seqboat_runner seqboat_runner;

typedef struct seqboat_runner_options {
  size_t size;
  int64_t threads;      ///< the caller's among them; 0 = 1. Results do not depend on it. The others sleep between calls
  int64_t max_tokens;   ///< tokens of all streams that go through the model at once; 0 = 512. More are cut inside; the workspace grows with it
  int64_t max_streams;  ///< streams of one call; 0 = 64
  int64_t max_context;  ///< the largest of the states' that it will feed, where the model needs one
  void* memory;         ///< where the workspace is to live, the caller's until the handle is freed; NULL: allocated
  size_t memory_bytes;  ///< at least seqboat_runner_bytes()
} seqboat_runner_options;

/// The bytes of a runner's workspace.
SEQBOAT_API seqboat_status seqboat_runner_bytes(const seqboat_model* model, const seqboat_runner_options* options, int64_t* bytes);

SEQBOAT_API seqboat_status seqboat_runner_create(const seqboat_model* model, const seqboat_runner_options* options, seqboat_runner** runner);
SEQBOAT_API void seqboat_runner_free(seqboat_runner* runner);

typedef enum seqboat_want SEQBOAT_AS_INT {
  SEQBOAT_WANT_LAST = 0,  ///< the head's output at the last token
  SEQBOAT_WANT_ALL = 1,   ///< at every token: of a classifier what it says of the stream up to there
  SEQBOAT_WANT_NOTHING = 2,
} seqboat_want;

/// What one stream is fed in one call. Arrays must not overlap.
typedef struct seqboat_feed {
  size_t size;
  seqboat_state* state;
  const int64_t* tokens;  ///< (count), of a model that reads tokens
  const float* values;    ///< (count, channels) finite numbers, of a model that reads numbers
  int64_t count;          ///< tokens or steps; 0 with SEQBOAT_WANT_LAST: the logits of the last token that was fed before
  seqboat_want want;
  float* logits;         ///< (outputs) for the last, (count, outputs) for all
  int64_t logits_count;  ///< room in logits, in numbers: at least as many
  /// (layers, count), 1 = activated: decides in the routers' place, whose confidence stays. NULL: they decide.
  const uint8_t* forced;
  uint8_t* active;     ///< (layers, count) or NULL: filled with the decisions, 0 or 1
  float* probability;  ///< (layers, count) or NULL: filled with the routers' P(active)
} seqboat_feed;

/// Feeds streams, and moves their states on; the weights are read once for all of them. All of it is checked before anything changes: an error leaves
/// every state and array untouched. SEQBOAT_ERROR_DATA: a token or number out of range, more tokens than max_context; SEQBOAT_ERROR_MODEL: a state of
/// another model; SEQBOAT_ERROR_USAGE: a state twice, too little room, too many streams. The elements of `streams` have one size.
SEQBOAT_API seqboat_status seqboat_runner_feed(seqboat_runner* runner, const seqboat_feed* streams, size_t count);

// --- The next token -------------------------------------------------------------------------------------------------------------------------------

/// Chooses a token from logits, as `seqboat generate` does. Belongs to one thread at a time.
typedef struct seqboat_sampler seqboat_sampler;

typedef struct seqboat_sampler_options {
  size_t size;
  double temperature;  ///< logits are divided by it; 0: the largest logit, of equal ones the first, always
  int64_t top_k;       ///< only the k most probable tokens; 0: all
  double top_p;        ///< of these only the most probable that together reach this share, at least one: in (0, 1]; 0: 1
  uint64_t seed;       ///< key of the draws
} seqboat_sampler_options;

/// A sampler of logits of `vocab` tokens.
SEQBOAT_API seqboat_status seqboat_sampler_create(const seqboat_sampler_options* options, int64_t vocab, seqboat_sampler** sampler);
SEQBOAT_API void seqboat_sampler_free(seqboat_sampler* sampler);

/// Draw number `number` from `count` (= vocab) logits. A number of a seed has one place in [0, 1), whatever was drawn before it: number draws by
/// seqboat_state_tokens(), and a text that goes on from a saved state is the one that would have come without the interruption. A logit of
/// -infinity is a token that cannot come. SEQBOAT_ERROR_DIVERGED: a logit that is NaN or infinity, or no token that can come.
SEQBOAT_API seqboat_status seqboat_sampler_sample(seqboat_sampler* sampler, const float* logits, int64_t count, int64_t number, int64_t* token);

// --- Whole sequences ------------------------------------------------------------------------------------------------------------------------------

/// Packed sequences: tokens cu_seqlens[b] .. cu_seqlens[b + 1] - 1 belong to sequence b.
typedef struct seqboat_sequences {
  size_t size;
  const int64_t* tokens;      ///< (count), of a model that reads tokens
  const float* values;        ///< (count, channels), of a model that reads numbers
  int64_t count;              ///< tokens or steps of all sequences together
  const int64_t* cu_seqlens;  ///< (batch + 1), from 0 to count; NULL: one sequence of everything
  int64_t batch;              ///< sequences; read where cu_seqlens is given
  const uint8_t* forced;      ///< (layers, count), as in seqboat_feed
  uint8_t* active;            ///< (layers, count) or NULL, likewise
  float* probability;         ///< (layers, count) or NULL, likewise
} seqboat_sequences;

typedef struct seqboat_forward_options {
  size_t size;
  int64_t threads;              ///< 0 = 1; results do not depend on it
  seqboat_want want;            ///< one row of logits a sequence (a classifier's answer), one a token, or none
  int64_t max_tokens;           ///< causal models: tokens that go through at once; 0 = 512
  uint64_t seed;                ///< hash key of layers that choose at random
  const int64_t* sequence_ids;  ///< (batch), likewise; NULL = 0 .. batch - 1
} seqboat_forward_options;

/// Whole sequences through a model of any kind, bidirectional ones too. logits: (batch, outputs), with SEQBOAT_WANT_ALL (count, outputs). Models that
/// compare two documents read pairs: as many second documents as first ones; others take second = NULL. Allocates. Errors as of
/// seqboat_runner_feed(); a sequence without a token is one (SEQBOAT_ERROR_DATA) where a logit of it is asked for.
SEQBOAT_API seqboat_status seqboat_forward(const seqboat_model* model, const seqboat_sequences* sequences, const seqboat_sequences* second,
                                           const seqboat_forward_options* options, float* logits, int64_t logits_count);

#ifdef __cplusplus
}
#endif

#endif
