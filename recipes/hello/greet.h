#ifndef GREET_H
#define GREET_H

#include <stddef.h>

/* Writes a greeting for `name` into `buffer` (`size` bytes, always terminated).
 * Returns the length the whole greeting has, as snprintf does. */
int greet(char *buffer, size_t size, const char *name);

/* Upper-cases the first letter of `word` in place. */
void capitalise(char *word);

#endif
