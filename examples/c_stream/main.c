// Feeds the standard input to a model as a stream: bytes to a model that reads tokens, numbers as text to one that reads numbers. Prints what the
// model says at the end, lets a copy of the stream run on by itself, and keeps the state in a file, from where the next run goes on.
//
//   c_stream MODEL_FOLDER [STATE_FILE] < INPUT

#include <seqboat.h>
#include <stdio.h>
#include <stdlib.h>

#define AHEAD 16  // tokens that the copy runs on

static void check(seqboat_status status) {
  if (status == SEQBOAT_OK) return;
  fprintf(stderr, "c_stream: %s\n", seqboat_error_message());
  exit(status);
}

static int64_t best_of(const float* logits, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i) best = logits[i] > logits[best] ? i : best;
  return best;
}

// One token or step of the standard input; 0 at its end.
static int read_step(const seqboat_model_info* info, int64_t* token, float* values) {
  if (info->channels == 0) {
    const int c = getchar();
    *token = c;
    return c != EOF;
  }
  for (int64_t i = 0; i < info->channels; ++i) {
    if (scanf("%f", &values[i]) != 1) return 0;
  }
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fprintf(stderr, "usage: c_stream MODEL_FOLDER [STATE_FILE] < INPUT\n");
    return 2;
  }
  seqboat_model* model;
  check(seqboat_model_load(argv[1], NULL, &model));
  seqboat_model_info info = {.size = sizeof info};
  check(seqboat_model_get_info(model, &info));

  seqboat_state* state;
  FILE* kept = argc == 3 ? fopen(argv[2], "rb") : NULL;
  if (kept != NULL) {
    fclose(kept);
    check(seqboat_state_load(model, argv[2], NULL, 0, &state));
  } else {
    const seqboat_state_options options = {.size = sizeof options, .max_context = info.needs_max_context ? 4096 : 0};
    check(seqboat_state_create(model, &options, &state));
  }
  seqboat_runner* runner;
  const seqboat_runner_options options = {.size = sizeof options, .max_tokens = 1, .max_streams = 1, .max_context = seqboat_state_max_context(state)};
  check(seqboat_runner_create(model, &options, &runner));
  printf("seqboat %s on %s: %s, %lld bytes a stream\n", seqboat_version(), seqboat_simd_target(), info.task, (long long)seqboat_state_size(state));

  // From here to the end of the input nothing is allocated.
  float* logits = malloc((size_t)info.outputs * sizeof *logits);
  float* values = malloc((size_t)(info.channels > 0 ? info.channels : 1) * sizeof *values);
  if (logits == NULL || values == NULL) return SEQBOAT_ERROR_RESOURCE;
  int64_t token = 0;
  seqboat_feed feed = {.size = sizeof feed, .state = state, .count = 1, .logits = logits, .logits_count = info.outputs};
  if (info.channels == 0) {
    feed.tokens = &token;
  } else {
    feed.values = values;
  }
  while (read_step(&info, &token, values)) check(seqboat_runner_feed(runner, &feed, 1));

  if (seqboat_state_tokens(state) > 0) {
    feed.count = 0;  // the last answer once more: after a loaded state, too, that nothing was fed to
    check(seqboat_runner_feed(runner, &feed, 1));
    printf("after %lld: %lld\n", (long long)seqboat_state_tokens(state), (long long)best_of(logits, info.outputs));
    if (info.channels == 0 && info.outputs == info.vocab) {
      seqboat_state* copy;
      check(seqboat_state_clone(state, NULL, 0, &copy));
      feed.state = copy;
      feed.count = 1;
      printf("ahead:");
      for (int i = 0; i < AHEAD; ++i) {
        token = best_of(logits, info.outputs);
        printf(" %lld", (long long)token);
        check(seqboat_runner_feed(runner, &feed, 1));
      }
      printf("\n");
      seqboat_state_free(copy);
    }
    for (int64_t layer = 0; layer < info.layers; ++layer) {
      int64_t activated;
      check(seqboat_state_activated(state, layer, &activated));
      printf("layer %lld attended at %lld of %lld\n", (long long)layer, (long long)activated, (long long)seqboat_state_tokens(state));
    }
  }
  if (argc == 3) check(seqboat_state_save(state, argv[2]));

  free(values);
  free(logits);
  seqboat_runner_free(runner);
  seqboat_state_free(state);
  seqboat_model_free(model);
  return 0;
}
