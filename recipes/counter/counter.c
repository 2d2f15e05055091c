#include <tally.h>

#include <stdio.h>

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: counter TEXT LETTER\n");
        return 2;
    }
    printf("%zu\n", tally(argv[1], argv[2][0]));
    return 0;
}
