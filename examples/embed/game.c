/* A game that learns while it runs: two players, each with a Lua state of its own, train between
 * frames on memory that belongs to this program, and their weights are read back at the end.
 *
 *     cc game.c $(pkg-config --cflags --libs luatape lua5.4) -o game && ./game brain.lua */
#include <lauxlib.h>
#include <lualib.h>
#include <luatape.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PLAYERS = 2, FRAMES = 600, BATCH = 32 };

typedef struct player {
  lua_State *L;
  float seen[BATCH][2]; /* what the player sees in a frame: a place on the board */
  float answers[BATCH]; /* what the right move would have been */
  unsigned dice;
  double first_loss, loss;
} player;

static int released; /* how often the engine gave our memory back */

static void on_release(void *userdata, void *data) {
  (void)userdata, (void)data;
  released++;
}

static float random_place(player *p) {
  p->dice = p->dice * 1664525u + 1013904223u;
  return (float)(p->dice >> 8) / (1 << 24) * 2 - 1;
}

/* Opens a state with luatape in it and leaves the brain's table on its stack. */
static int open_player(player *p, unsigned seed, const char *script) {
  p->L = luaL_newstate();
  if (!p->L) return 0;
  p->dice = seed;
  luaL_openlibs(p->L);
  luaL_requiref(p->L, "luatape", luaopen_luatape, 0);
  lua_pop(p->L, 1);
  luatape_set_threads(p->L, 1); /* the frame's other work keeps its cores */
  if (luaL_loadfilex(p->L, script, "t") || lua_pcall(p->L, 0, 1, 0)) {
    fprintf(stderr, "%s\n", lua_tostring(p->L, -1));
    return 0;
  }
  return 1;
}

/* Runs under lua_pcall: pushing tensors may raise. */
static int learn(lua_State *L) {
  player *p = lua_touserdata(L, 2);
  lua_getfield(L, 1, "learn");
  luatape_push(L, p->seen, LUATAPE_FLOAT32, 2, (int64_t[]){BATCH, 2}, on_release, NULL);
  luatape_push(L, p->answers, LUATAPE_FLOAT32, 2, (int64_t[]){BATCH, 1}, on_release, NULL);
  lua_call(L, 2, 1);
  p->loss = lua_tonumber(L, -1);
  return 0;
}

static int frame(player *p) {
  for (int i = 0; i < BATCH; i++) {
    float x = p->seen[i][0] = random_place(p), y = p->seen[i][1] = random_place(p);
    p->answers[i] = sinf(2 * x) * y;
  }
  lua_pushcfunction(p->L, learn);
  lua_pushvalue(p->L, 1);
  lua_pushlightuserdata(p->L, p);
  if (lua_pcall(p->L, 2, 0, 0) == LUA_OK) return 1;
  fprintf(stderr, "%s\n", lua_tostring(p->L, -1));
  lua_pop(p->L, 1);
  return 0;
}

/* Reads the first layer's weight (16 x 2) back into the program's memory. */
static int read_weight(lua_State *L) {
  float *out = lua_touserdata(L, 2);
  luatape_view view;
  lua_getfield(L, 1, "weight");
  lua_call(L, 0, 1);
  luatape_check(L, -1, &view);
  if (view.ndim != 2 || view.numel != 32) return luaL_error(L, "a weight of another shape");
  luatape_read(L, -1, LUATAPE_FLOAT32, out, 32);
  return 0;
}

int main(int argc, char **argv) {
  static player players[PLAYERS];
  float weight[PLAYERS][32];
  if (argc < 2) return fprintf(stderr, "usage: %s brain.lua\n", argv[0]), 1;
  for (int i = 0; i < PLAYERS; i++) {
    if (!open_player(&players[i], 17u + (unsigned)i, argv[1])) return 1;
  }
  for (int f = 0; f < FRAMES; f++) {
    for (int i = 0; i < PLAYERS; i++) {
      if (!frame(&players[i])) return 1;
      if (f == 0) players[i].first_loss = players[i].loss;
    }
  }
  int learned = 1;
  for (int i = 0; i < PLAYERS; i++) {
    player *p = &players[i];
    lua_pushcfunction(p->L, read_weight);
    lua_pushvalue(p->L, 1);
    lua_pushlightuserdata(p->L, weight[i]);
    if (lua_pcall(p->L, 2, 0, 0)) return fprintf(stderr, "%s\n", lua_tostring(p->L, -1)), 1;
    printf("player %d: loss %.4f -> %.4f, first weight %+.4f\n", i + 1, p->first_loss, p->loss,
           (double)weight[i][0]);
    learned = learned && p->loss < 0.1 * p->first_loss && isfinite(weight[i][0]);
    lua_close(p->L);
  }
  if (released != 2 * FRAMES * PLAYERS) {
    return fprintf(stderr, "%d of %d buffers released\n", released, 2 * FRAMES * PLAYERS), 1;
  }
  if (!learned) return fprintf(stderr, "a player did not learn\n"), 1;
  puts("both players learned");
  return 0;
}
