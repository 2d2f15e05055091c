#include "greet.h"

#include <ctype.h>

void capitalise(char *word)
{
    if (word[0] != '\0')
        word[0] = (char)toupper((unsigned char)word[0]);
}
