/* gcc's unwinder for glibc finds a program's tables by asking the dynamic loader, with a call that musl does not have.
 * This answers it from the program headers, as older unwinders did themselves. It owns nothing and allocates nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stddef.h>

#if __GLIBC_PREREQ(2, 35)

struct search {
    ElfW(Addr) address;
    struct dl_find_object *found;
};

static int look(struct dl_phdr_info *object, size_t size, void *argument) {
    struct search *search = argument;
    int inside = 0;
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        ElfW(Addr) start = object->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && search->address - start < segment->p_memsz) {
            inside = 1;
            search->found->dlfo_map_start = (void *)start;
            search->found->dlfo_map_end = (void *)(start + segment->p_memsz);
        }
        if (segment->p_type == PT_GNU_EH_FRAME)
            search->found->dlfo_eh_frame = (void *)start;
    }
    return inside && search->found->dlfo_eh_frame != NULL;
}

int _dl_find_object(void *address, struct dl_find_object *found) {
    struct search search = {(ElfW(Addr))address, found};
    *found = (struct dl_find_object){0};
    return dl_iterate_phdr(look, &search) ? 0 : -1;
}

#endif
