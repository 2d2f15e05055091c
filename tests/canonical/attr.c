// attr PATH NAME HEX: sets an extended attribute, of a symlink itself. attr PATH NAME: takes it off.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

int main(int argc, char **argv) {
    char value[256];
    size_t len = 0;
    if (argc == 3 && lremovexattr(argv[1], argv[2]) == 0)
        return 0;
    if (argc != 4)
        return perror("attr"), 1;
    for (char *hex = argv[3]; hex[0] && hex[1] && len < sizeof value; hex += 2) {
        char byte[3] = {hex[0], hex[1], 0};
        value[len++] = (char)strtol(byte, NULL, 16);
    }
    if (lsetxattr(argv[1], argv[2], value, len, 0) != 0)
        return perror("attr"), 1;
    return 0;
}
