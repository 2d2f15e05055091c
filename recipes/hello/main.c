#include "greet.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    char name[64];
    char line[96];

    snprintf(name, sizeof name, "%s", argc > 1 ? argv[1] : "world");
    capitalise(name);
    greet(line, sizeof line, name);
    puts(line);
    return 0;
}
