/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The text of a document. cJSON passes bytes from 0x7f up as they are, and what was read from a file may hold
 * any: here everything beyond ASCII becomes \uXXXX, which is the same to a JSON reader, and a byte that is no
 * UTF-8 becomes \u00XX. So what was read and is written again does not change, and no control character of
 * whatever file gets through.
 */
#include "base/cleanup.h"
#include "base/utf8.h"
#include "reaper/incident_doc.h"

#include <string.h>

char *document_text_of(const cJSON *root)
{
    char *plain = cJSON_PrintUnformatted(root);
    size_t left = plain ? strlen(plain) : 0, room = 1;
    const uint8_t *p = (const uint8_t *)plain;
    for (size_t i = 0; i < left; i++)
        room += p[i] >= 0x20 && p[i] < 0x7f ? 1 : 6; /* at least what its character takes */
    char *text = plain ? malloc(room) : NULL, *out = text;
    while (text && left) {
        uint32_t c = *p;
        size_t len = utf8_decode(p, left, &c);
        if (!len) /* no UTF-8: the byte by itself */
            len = 1;
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
