/* Special functions in double precision; float32 kernels round their results. */
#ifndef LT_KERNELS_SPECIAL_H
#define LT_KERNELS_SPECIAL_H

/* log |Gamma(x)| */
double lt_lgamma(double x);

/* d/dx log Gamma(x), and its derivative. */
double lt_digamma(double x);
double lt_trigamma(double x);

/* The n-th derivative of digamma, n in 0..LT_MAX_POLYGAMMA. */
enum { LT_MAX_POLYGAMMA = 170 }; /* the last n with a finite n! */
double lt_polygamma(int n, double x);

/* The y with erf(y) = x. */
double lt_erfinv(double x);

#endif
