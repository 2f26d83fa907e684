/* The passes over the gates of one time step, for one element type T and instruction set: included
 * by recurrent.c, which says what TARGET, T and NAME are. Rows r are tasks; a gate is w wide. */

#define STEP                                                                                       \
  const lt_recurrent_step *s = step;                                                               \
  const int64_t w = s->hidden
#define BIASES const T *b = s->bias, *d = s->hidden_bias
#define ROW(m) ((T *)(void *)s->m.data + r * s->m.step)
/* Where the sums of a row are z: of gate number k for unit j. */
#define SUM(k) (z[j + (k)*w] + (b[j + (k)*w] + d[j + (k)*w]))

static TARGET void NAME(rnn_tanh)(void *step, int64_t first, int64_t last) {
  STEP;
  BIASES;
  for (int64_t r = first; r < last; r++) {
    T *z = ROW(gates);
    FOR_UNITS { z[j] = TANH(SUM(0)); }
  }
}

static TARGET void NAME(rnn_tanh_backward)(void *step, int64_t first, int64_t last) {
  STEP;
  for (int64_t r = first; r < last; r++) {
    const T *h = ROW(gates), *dy = ROW(dy), *dh = ROW(dh);
    T *dz = ROW(dinput);
    FOR_UNITS { dz[j] = (dy[j] + dh[j]) * (1 - h[j] * h[j]); }
  }
}

static TARGET void NAME(rnn_relu)(void *step, int64_t first, int64_t last) {
  STEP;
  BIASES;
  for (int64_t r = first; r < last; r++) {
    T *z = ROW(gates);
    FOR_UNITS {
      const T sum = SUM(0);
      z[j] = sum < 0 ? 0 : sum; /* NaN stays */
    }
  }
}

static TARGET void NAME(rnn_relu_backward)(void *step, int64_t first, int64_t last) {
  STEP;
  for (int64_t r = first; r < last; r++) {
    const T *h = ROW(gates), *dy = ROW(dy), *dh = ROW(dh);
    T *dz = ROW(dinput);
    FOR_UNITS {
      const T sum = dy[j] + dh[j];
      dz[j] = h[j] <= 0 ? 0 : sum;
    }
  }
}

static TARGET void NAME(gru)(void *step, int64_t first, int64_t last) {
  STEP;
  BIASES;
  for (int64_t r = first; r < last; r++) {
    T *z = ROW(gates), *memory = ROW(memory), *h = ROW(h);
    const T *product = ROW(product), *last_h = ROW(last_h);
    FOR_UNITS {
      const T reset = SIGMOID(product[j] + SUM(0)), keep = SIGMOID(product[j + w] + SUM(1));
      const T m = product[j + 2 * w] + d[j + 2 * w];
      const T new = TANH(z[j + 2 * w] + b[j + 2 * w] + reset * m);
      z[j] = reset;
      z[j + w] = keep;
      z[j + 2 * w] = new;
      memory[j] = m;
      h[j] = (1 - keep) * new + keep *last_h[j];
    }
  }
}

static TARGET void NAME(gru_backward)(void *step, int64_t first, int64_t last) {
  STEP;
  for (int64_t r = first; r < last; r++) {
    const T *z = ROW(gates), *memory = ROW(memory), *last_h = ROW(last_h), *dy = ROW(dy);
    T *dh = ROW(dh), *dinput = ROW(dinput), *dlast = ROW(dlast);
    FOR_UNITS {
      const T reset = z[j], keep = z[j + w], new = z[j + 2 * w], sum = dy[j] + dh[j];
      const T dnew = sum * (1 - keep) * (1 - new *new);
      const T dkeep = sum * (last_h[j] - new) * keep * (1 - keep);
      const T dreset = dnew * memory[j] * reset * (1 - reset);
      dinput[j] = dlast[j] = dreset;
      dinput[j + w] = dlast[j + w] = dkeep;
      dinput[j + 2 * w] = dnew;
      dlast[j + 2 * w] = dnew * reset;
      dh[j] = sum * keep;
    }
  }
}

static TARGET void NAME(lstm)(void *step, int64_t first, int64_t last) {
  STEP;
  BIASES;
  for (int64_t r = first; r < last; r++) {
    T *z = ROW(gates), *memory = ROW(memory), *h = ROW(h);
    const T *last_c = ROW(last_memory);
    FOR_UNITS {
      const T in = SIGMOID(SUM(0)), forget = SIGMOID(SUM(1)), new = TANH(SUM(2));
      const T out = SIGMOID(SUM(3)), c = forget * last_c[j] + in * new;
      z[j] = in;
      z[j + w] = forget;
      z[j + 2 * w] = new;
      z[j + 3 * w] = out;
      memory[j] = c;
      h[j] = out * TANH(c);
    }
  }
}

static TARGET void NAME(lstm_backward)(void *step, int64_t first, int64_t last) {
  STEP;
  for (int64_t r = first; r < last; r++) {
    const T *z = ROW(gates), *memory = ROW(memory), *last_c = ROW(last_memory);
    const T *dy = ROW(dy), *dh = ROW(dh);
    T *dc = ROW(dc), *dz = ROW(dinput);
    FOR_UNITS {
      const T in = z[j], forget = z[j + w], new = z[j + 2 * w], out = z[j + 3 * w];
      const T sum = dy[j] + dh[j], t = TANH(memory[j]), e = dc[j] + sum * out * (1 - t * t);
      dz[j] = e * new *in *(1 - in);
      dz[j + w] = e * last_c[j] * forget * (1 - forget);
      dz[j + 2 * w] = e * in * (1 - new *new);
      dz[j + 3 * w] = sum * t * out * (1 - out);
      dc[j] = e * forget;
    }
  }
}

static lt_task *const NAME(forward)[] = {NAME(rnn_tanh), NAME(rnn_relu), NAME(gru), NAME(lstm)};
static lt_task *const NAME(backward)[] = {NAME(rnn_tanh_backward), NAME(rnn_relu_backward),
                                          NAME(gru_backward), NAME(lstm_backward)};

#undef STEP
#undef BIASES
#undef ROW
#undef SUM
#undef NAME
#undef TARGET
#undef T
