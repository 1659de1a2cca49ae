/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The text of a document. cJSON passes bytes from 0x7f up as they are, and what was read from a file may hold
 * any: here everything beyond ASCII becomes \uXXXX, which is the same to a JSON reader, and a byte that is no
 * UTF-8 becomes \u00XX. So what was read and is written again does not change, and no control character of
 * whatever file gets through.
 */
#include "base/cleanup.h"
#include "reaper/incident_doc.h"

#include <string.h>

/* The character at p, of which *ret_len bytes are; one that is no UTF-8 is its first byte. */
static uint32_t character_at(const uint8_t *p, size_t left, size_t *ret_len)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] >= 0xf0 && p[0] < 0xf8 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc0 ? 2 : 1;
    uint32_t c = n > 1 ? p[0] & (0x7fu >> n) : p[0];
    bool valid = n <= left && p[0] < 0xf8;
    for (size_t i = 1; valid && i < n; i++) {
        valid = (p[i] & 0xc0) == 0x80;
        c = c << 6 | (p[i] & 0x3f);
    }
    valid = valid && c >= smallest[n] && c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
    *ret_len = valid ? n : 1;
    return valid ? c : p[0];
}

char *document_text_of(const cJSON *root)
{
    char *plain = cJSON_PrintUnformatted(root);
    size_t left = plain ? strlen(plain) : 0, room = 1;
    const uint8_t *p = (const uint8_t *)plain;
    for (size_t i = 0; i < left; i++)
        room += p[i] >= 0x20 && p[i] < 0x7f ? 1 : 6; /* at least what its character takes */
    char *text = plain ? malloc(room) : NULL, *out = text;
    while (text && left) {
        size_t len;
        uint32_t c = character_at(p, left, &len);
        if (c >= 0x10000)
            out += sprintf(out, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
        else if (c < 0x20 || c >= 0x7f)
            out += sprintf(out, "\\u%04x", c);
        else
            *out++ = (char)c;
        p += len;
        left -= len;
    }
    if (text)
        *out = '\0';
    cJSON_free(plain);
    return text;
}
