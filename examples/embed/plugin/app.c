/* A player in C: each import and export is named and shaped by the canonical ABI. */
#include "cloche_guest.h"

/* result<u32, error>, written by the host: 0 and a number, or 1 and the case of the error. */
typedef struct {
    uint8_t is_error;
    uint32_t number;
} rolled;

/* result<u32, string>, read by the host: 0 and a number, or 1 and a text. */
typedef struct {
    uint8_t is_error;
    union {
        uint32_t sum;
        cloche_text reason;
    };
} played;

CLOCHE_IMPORT("acme:dice/dice@1.0.0", "roll")
void roll(uint32_t sides, rolled *answer);

CLOCHE_EXPORT("acme:game/player@1.0.0#play")
const played *play(uint32_t rounds, uint32_t sides) {
    static played result;
    result = (played){.sum = 0};
    for (uint32_t round = 0; round < rounds; round++) {
        rolled answer;
        roll(sides, &answer);
        if (answer.is_error) {
            result = (played){.is_error = 1, .reason = CLOCHE_TEXT("these dice are not allowed")};
            return &result;
        }
        result.sum += answer.number;
    }
    return &result;
}
