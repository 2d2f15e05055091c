#include "greet.h"

#include <stdio.h>
#include <string.h>

static int failures;

static void expect(const char *what, int ok)
{
    printf("%s: %s\n", ok ? "ok" : "FAILED", what);
    failures += !ok;
}

int main(void)
{
    char line[32];
    char word[] = "isolith";
    char empty[] = "";

    expect("a greeting has its length", greet(line, sizeof line, "World") == 13);
    expect("a greeting names whom it greets", strcmp(line, "Hello, World!") == 0);
    expect("a long greeting is cut, not overrun", greet(line, 6, "World") == 13 && strcmp(line, "Hello") == 0);
    capitalise(word);
    expect("the first letter is upper case", strcmp(word, "Isolith") == 0);
    capitalise(empty);
    expect("an empty word stays empty", empty[0] == '\0');
    return failures != 0;
}
