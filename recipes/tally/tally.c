#include "tally.h"

size_t tally(const char *text, char letter)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += *text == letter;
    return n;
}
