/* A greeter in C, written against the canonical ABI; cloche_guest.h comes with the SDK. */
#include "cloche_guest.h"

#define GREETER "cloche:example/greeter@1.0.0#"

CLOCHE_EXPORT(GREETER "greet")
const cloche_text *greet(const char *name, size_t length) {
    const cloche_text pieces[] = {CLOCHE_TEXT("Hello, "), {name, length}, CLOCHE_TEXT("!")};
    return cloche_return(cloche_join(pieces, sizeof pieces / sizeof *pieces));
}

CLOCHE_EXPORT("cabi_post_" GREETER "greet")
void greet_done(const cloche_text *result) {
    (void)result;
    cloche_release();
}
