/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Does nothing, with the libraries of rbxj: what a unit costs at least.
 */
int main(void)
{
    return 0;
}
