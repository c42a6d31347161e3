/* What a component in C needs when it has no C library: memory, texts, and the names of its exports.
 *
 * Include it in exactly one C file. It follows the canonical ABI: a text or list comes in as pointer and length, and
 * goes out through a return area, whose address the export returns. The host calls `cabi_realloc` to place arguments,
 * and `cabi_post_...` when it has read the result.
 */
#ifndef CLOCHE_GUEST_H
#define CLOCHE_GUEST_H

#include <stddef.h>
#include <stdint.h>

/* CLOCHE_EXPORT("ns:pkg/interface@1.0.0#function") before a function's definition exports it. */
#define CLOCHE_EXPORT(name) __attribute__((export_name(name), used)) extern
#define CLOCHE_IMPORT(interface, name) __attribute__((import_module(interface), import_name(name))) extern

/* A text in UTF-8, or a list of bytes. Not terminated by a zero. */
typedef struct {
    const char *data;
    size_t length;
} cloche_text;

#define CLOCHE_TEXT(literal) ((cloche_text){(literal), sizeof(literal) - 1})
#define CLOCHE_PAGE 65536u

extern unsigned char __heap_base;
static uintptr_t cloche_next;
static uintptr_t cloche_last;

/* Memory for the rest of this call; traps when there is none. Nothing is freed singly: see cloche_release. */
static void *cloche_take(size_t alignment, size_t size) {
    if (cloche_next == 0) cloche_next = (uintptr_t)&__heap_base;
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) __builtin_trap();
    uintptr_t start = (cloche_next + alignment - 1) & ~(uintptr_t)(alignment - 1);
    uintptr_t end;
    if (start < cloche_next || __builtin_add_overflow(start, (uintptr_t)size, &end)) __builtin_trap();
    uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0);
    uintptr_t need = (end - 1) / CLOCHE_PAGE + 1;
    if (need > have && __builtin_wasm_memory_grow(0, need - have) == (size_t)-1) __builtin_trap();
    cloche_last = start;
    cloche_next = end;
    return (void *)start;
}

/* Gives back everything that was taken in this call. Call it in each cabi_post_ function. */
static inline void cloche_release(void) { cloche_next = cloche_last = 0; }

static inline void cloche_copy(char *to, const char *from, size_t length) {
    for (size_t i = 0; i < length; i++) to[i] = from[i];
}

/* The pieces one after another, in new memory. */
static inline cloche_text cloche_join(const cloche_text *pieces, size_t count) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++)
        if (__builtin_add_overflow(length, pieces[i].length, &length)) __builtin_trap();
    char *data = cloche_take(1, length), *end = data;
    for (size_t i = 0; i < count; i++) {
        cloche_copy(end, pieces[i].data, pieces[i].length);
        end += pieces[i].length;
    }
    return (cloche_text){data, length};
}

/* The return area of a function whose result is a text or a list. */
static inline const cloche_text *cloche_return(cloche_text text) {
    cloche_text *area = cloche_take(sizeof(uintptr_t), sizeof *area);
    *area = text;
    return area;
}

CLOCHE_EXPORT("cabi_realloc")
void *cabi_realloc(void *old, size_t old_size, size_t alignment, size_t new_size) {
    if (old != 0 && (uintptr_t)old == cloche_last && new_size >= old_size) {
        cloche_next = cloche_last; /* the newest block grows where it is */
        return cloche_take(alignment, new_size);
    }
    char *block = cloche_take(alignment, new_size);
    cloche_copy(block, old, old_size < new_size ? old_size : new_size);
    return block;
}

#endif
