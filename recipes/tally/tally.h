#ifndef TALLY_H
#define TALLY_H

#include <stddef.h>

/* How often `letter` occurs in `text`. */
size_t tally(const char *text, char letter);

#endif
