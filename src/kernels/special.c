/* Special functions by the textbook: recurrence to where the asymptotic series holds, reflection
 * for negative arguments. Abramowitz and Stegun 1964, chapters 6, 7 and 23. */
#define _DEFAULT_SOURCE /* lgamma_r: lgamma writes a global */

#include "kernels/special.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

/* B(2k) / (2k)!, k = 1.. */
static const double bernoulli[] = {1.0 / 12,          -1.0 / 720,
                                   1.0 / 30240,       -1.0 / 1209600,
                                   1.0 / 47900160,    -691.0 / 1307674368000,
                                   1.0 / 74724249600, -3617.0 / 10670622842880000};

double lt_lgamma(double x) {
  int sign;
  return lgamma_r(x, &sign);
}

double lt_digamma(double x) {
  if (x == 0) return copysign(INFINITY, -x);
  double y = 0;
  if (x < 0) {
    double part = x - rint(x);
    if (part == 0) return NAN;
    y = -PI / tan(PI * part);
    x = 1 - x;
  }
  for (; x < 10; x++) y -= 1 / x;
  double z = 1 / (x * x);
  double series =
      z * (1.0 / 12 - z * (1.0 / 120 -
                           z * (1.0 / 252 -
                                z * (1.0 / 240 - z * (1.0 / 132 - z * (691.0 / 32760 - z / 12))))));
  return y + log(x) - 0.5 / x - series;
}

double lt_trigamma(double x) {
  double y = 0, sign = 1;
  if (x < 0.5) { /* the rounded sine is not 0 at the poles: PyTorch's large finite values */
    double part = x - rint(x);
    double sine = sin(PI * (part == 0 ? x : part));
    y = -(PI * PI) / (sine * sine);
    x = 1 - x;
    sign = -1;
  }
  for (; x < 12; x++) y += 1 / (x * x);
  double z = 1 / (x * x);
  double series =
      z * (1.0 / 6 -
           z * (1.0 / 30 -
                z * (1.0 / 42 - z * (1.0 / 30 - z * (5.0 / 66 - z * (691.0 / 2730 - z * 7 / 6))))));
  return sign * (y + (1 + 0.5 / x + series) / x);
}

/* Hurwitz's zeta, sum over k >= 0 of (a + k)^-s, for a > 0: Euler and Maclaurin's formula. */
static double zeta(double s, double a) {
  double sum = 0;
  for (double far = s + 10; a < far; a++) sum += pow(a, -s);
  double power = pow(a, -s), factor = s * power / a;
  sum += power * (a / (s - 1) + 0.5);
  for (int k = 0; k < (int)(sizeof bernoulli / sizeof *bernoulli); k++) {
    sum += bernoulli[k] * factor;
    factor *= (s + 2 * k + 1) * (s + 2 * k + 2) / (a * a);
  }
  return sum;
}

double lt_polygamma(int n, double x) {
  if (n == 0) return lt_digamma(x);
  if (n == 1) return lt_trigamma(x);
  if (isnan(x) || x == -INFINITY) return NAN;
  if (x == INFINITY) return 0;
  double s = n + 1, sum;
  double even = n % 2 ? 1 : -1; /* (-1)^s */
  if (x > 0) {
    sum = zeta(s, x);
  } else { /* the sum over all integers, without those below x */
    double part = x - floor(x);
    if (part == 0) return even * INFINITY;
    sum = zeta(s, part) + even * (zeta(s, 1 - part) - zeta(s, 1 - x));
  }
  return even * tgamma(s) * sum;
}

/* A start by Giles 2010, "Approximating the erfinv function", or by the asymptote of erfc; then
 * Halley's steps, on erfc where erf is flat. */
double lt_erfinv(double x) {
  double a = fabs(x);
  if (!(a < 1)) return a == 1 ? copysign(INFINITY, x) : NAN;
  double w = -log1p(-x * x), y;
  if (w < 5) {
    w -= 2.5;
    y = 2.81022636e-08;
    y = y * w + 3.43273939e-07;
    y = y * w - 3.5233877e-06;
    y = y * w - 4.39150654e-06;
    y = y * w + 0.00021858087;
    y = y * w - 0.00125372503;
    y = y * w - 0.00417768164;
    y = y * w + 0.246640727;
    y = a * (y * w + 1.50140941);
  } else {
    y = sqrt(w + 0.12 - 0.5 * log(w));
  }
  for (int step = 0; step < 2; step++) {
    double error = a < 0.5 ? erf(y) - a : (1 - a) - erfc(y);
    double newton = error * (sqrt(PI) / 2) * exp(y * y);
    y -= newton / (1 + newton * y);
  }
  return copysign(y, x);
}
